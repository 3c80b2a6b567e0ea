"""The session core on real child processes, without a broker and without MCP."""
