"""Owning: what the owner of a call does from its start to its end."""
