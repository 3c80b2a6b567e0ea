"""MCP over streamable HTTP, in both of its eras: every client reaches the session of its phone call.

``endpoint`` receives requests, ``call_finder`` finds their call, ``methods`` answers them by asking workers, and
``stream`` writes the messages before an answer. ``subscription_streams`` reports changes, which ``changes`` receives
through one queue of events for the whole gateway. ``client_request``, ``rpc_messages``, ``protocol``, ``sealing`` and
``results`` are pure. State belongs to the call and not to ``Mcp-Session-Id``. So any replica answers any request, and a
client that opens a new MCP session for each tool call finds its state again.
"""
