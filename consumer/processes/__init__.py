"""MCP servers as processes: starts them, talks to them, isolates them, ends them.

The only room that imports ``mcp``; it knows nothing of AMQP and nothing of calls. What others use is
``mcp_manager.MCPManager``, ``client.mcp_client.MCPClient`` and ``service.MCPService``; nothing is imported here,
because the SDK takes 0.7 s to import and the settings only want the model of a service.
"""
