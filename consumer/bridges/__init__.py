"""Bridges: small processes beside a telephony system, which publish what it tells of calls.

A bridge needs the rights of a publisher and nothing else. It knows the translators, so that it publishes only what
concerns the life of a call, and no worker.
"""
