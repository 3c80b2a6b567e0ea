"""A server as a process: its pipes, its lines, and its end."""
