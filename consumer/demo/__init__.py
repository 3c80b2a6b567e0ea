"""The demo: calls of several telephony platforms, played on two real workers and an HTTP gateway.

``script`` contains the calls and their events, ``lines`` sends them to the workers, ``stage`` starts and removes the
workers, ``story`` plays the calls, and ``watch`` records what happens. The command line shows it. Every number that it
prints was measured in this run.
"""
