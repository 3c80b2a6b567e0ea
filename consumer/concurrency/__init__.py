"""Tasks, queues and memory that know nothing of calls."""
