"""Starts servers ahead of calls."""
