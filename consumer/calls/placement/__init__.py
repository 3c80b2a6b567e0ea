"""Placing: which worker gets a call that nobody owns."""
