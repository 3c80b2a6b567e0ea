"""MCP over streamable HTTP, in both of its eras: every client reaches the session of its phone call.

``endpoint`` takes requests, ``call_finder`` finds the call that is meant, ``methods`` answers by asking workers,
``stream`` writes what comes before an answer. ``subscription_streams`` tells what changes, of which ``changes`` hears
through one queue of events for the whole gateway. ``client_request``, ``rpc_messages``, ``protocol``, ``sealing`` and
``results`` are pure. State hangs on the call and not on ``Mcp-Session-Id``, so any replica answers any request, and a
client that opens a new MCP session for each tool call finds what it left.
"""
