"""Servers that are started ahead of calls."""
