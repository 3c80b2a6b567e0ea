"""Requests to the sessions of a call: tool calls and reads."""
