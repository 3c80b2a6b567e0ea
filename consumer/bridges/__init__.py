"""Bridges: small processes beside a telephony system that publish its call events.

A bridge needs only the rights of a publisher. It uses the translators to publish only events about the life of a call.
It imports nothing of the worker.
"""
