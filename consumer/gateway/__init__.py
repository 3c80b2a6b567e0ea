"""The HTTP gateway: SignalWire's gateway API, webhooks and SWAIG functions, for HTTP clients.

It is stateless and asks workers through ``SessionClient`` only, so any number of replicas may run. The room knows
nothing of the worker; in ``worker --gateway`` the composition root gives its client a shorter way to calls of the same
process.
"""
