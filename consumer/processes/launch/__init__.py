"""How a process is started and kept apart from the others."""
