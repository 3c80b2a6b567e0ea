"""Placing: chooses a worker for a call without an owner."""
