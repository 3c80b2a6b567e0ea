"""A simulated world: a clock that jumps, whole workers, MCP servers, callers, and everything that can break."""
