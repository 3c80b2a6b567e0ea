"""Tasks, queues and caches that do not depend on calls."""
