"""Starts processes and isolates them from each other."""
