"""One MCP client: its start, its requests, its end."""
