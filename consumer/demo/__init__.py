"""The demo: a few calls of several telephony platforms, played on two real workers and an HTTP gateway.

``script`` has the calls and the events they are made of, ``lines`` are their ways to the workers, ``stage`` starts and
removes what is needed, ``story`` plays, ``watch`` notes what is seen; how it is shown is the command line's. Nothing in
it is made up: every number that it tells was measured in this run.
"""
