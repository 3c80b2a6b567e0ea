"""Telephony translators: what platforms really send, and what becomes of it."""
