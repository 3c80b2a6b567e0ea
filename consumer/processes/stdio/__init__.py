"""A server as a process: pipes, lines, and how it ends."""
