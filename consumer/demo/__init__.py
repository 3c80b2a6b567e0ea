"""The demo: a few calls of several telephony platforms, played on two real workers.

``script`` has the calls and the events they are made of, ``stage`` starts and removes what is needed, ``story`` plays,
``watch`` notes what is seen; how it is shown is the command line's. Nothing in it is made up: every number that it
tells was measured in this run.
"""
