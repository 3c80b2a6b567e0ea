"""Assembles the AsyncAPI document."""

import re
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from consumer import __version__
from consumer.asyncapi.channels import PARAMETERS, DocumentChannel, channels
from consumer.asyncapi.header_schemas import HEADERS
from consumer.asyncapi.messages import CORRELATION, messages
from consumer.asyncapi.operations import operations
from consumer.asyncapi.payloads import schemas
from consumer.broker.topology import Names, Topology
from consumer.processes.service import MCPService
from consumer.settings.models import SessionSettings

VERSION = "3.1.0"
"""The version of AsyncAPI."""

_DESCRIPTION = """\
Gives each phone call an MCP server process of its own, a *session*. Telephony publishes what happens to calls; agents
and backends ask for tool calls; subscribers receive the events of sessions.

The document describes the worker's side: a worker receives requests and sends events. To generate a client, swap
`receive` and `send`. Publish to channels named `exchange.`, or bind queues to them. Consume channels named `queue.`, or
publish to them through the default exchange. AMQP properties are listed with the headers and are marked with
`x-amqp-property`.

A request names its type in the AMQP property `type`. The reply goes to `reply_to`. Its type is that of the request,
followed by `.reply`, and it has the same `correlation_id`. The exchanges `mcp.sessions` and `mcp.requests` both
accept every message that is addressed to a call; the operation of each request names the exchange to use. Messages
marked with `x-internal` are sent between workers only. The first worker, or an operator, declares the exchanges.
Publish with confirms, and with the `deliveryMode` that the operation names: 2 for call events and for
`mcp.sessions`, whose messages outlive a restart of the broker, and 1 for all other requests.

`x-max-bytes` of a message is the most bytes of its body. For events and requests it is `worker.max_message`, which can
be configured. A larger body becomes a dead letter with the reason `too_large`. One of more than 100,000 JSON values is
refused as well. For `tools.call` it is `max_arguments` of the service. A larger one, up to `worker.max_message`, is
answered with `INVALID_MESSAGE`, and does not become a dead letter.

If a request leaves a duration out or sets it to `null`, the configuration decides. An idle timeout (`timeout` of
`session.create`, `session_timeout`) is the service's `timeout`, else `session.default_timeout`, by default {idle:g} s.
The `timeout` of any other request is the service's `call_timeout`, by default {call:g} s. A longer one than its
`max_call_timeout`, by default {longest:g} s, is shortened to that.

A request without a reply address is executed but not answered. If no reply comes in time, it is unknown whether the
request was executed: its worker may have died, or there may be no queue of the name in `reply_to`. A worker does not
repeat a tool call by itself. `x-executed` of the error codes says which errors mean that nothing was executed.

A `#` in the `call_id` of an event becomes `%23`, because in a `session_id` the call's id ends at the first `#`. Write
`%23` in the `session_id` and in the routing key of a request to such a call. Otherwise the request names another call,
and is answered with `SESSION_NOT_FOUND`. Ids have 1 to 255 bytes in UTF-8. `maxLength` counts characters, so it does
not find every id that is too long.
"""

_SERVICE = MCPService(name="any", command=["any"])
"""A service with default settings."""

_TAGS = {
    "calls": "Call events.",
    "sessions": "Opening, closing and looking at sessions.",
    "tools": "Tools, resources and prompts of a session's MCP server.",
    "cluster": "Requests that any worker answers.",
    "events": "Events of sessions and workers, as CloudEvents 1.0.",
    "dead_letter": "Messages that could not be handled.",
    "internal": "Between workers; it may change with any version.",
}


@dataclass(frozen=True, slots=True)
class Server:
    """The address of the broker, without secrets."""

    host: str = "localhost:5672"
    vhost: str = "/"
    tls: bool = False

    @classmethod
    def of_url(cls, url: str) -> Self:
        """Return the broker in an AMQP URL, without user and password."""
        parts = urlsplit(url)
        tls = parts.scheme == "amqps"
        name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return cls(f"{name}:{parts.port or (5671 if tls else 5672)}", unquote(parts.path[1:]) or "/", tls=tls)


def document(names: Names, topology: Topology, server: Server = Server()) -> dict[str, Any]:
    """Return the AsyncAPI document of all messages under a prefix."""
    bodies = schemas()
    found = channels(names, topology)
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "mcp-sessions",
            "version": __version__,
            "description": _DESCRIPTION.format(
                idle=SessionSettings().default_timeout, call=_SERVICE.call_timeout, longest=_SERVICE.longest_call
            ),
            "license": {"name": "MIT"},
            "tags": [{"name": name, "description": told} for name, told in _TAGS.items()],
        },
        "defaultContentType": "application/json",
        "servers": {"broker": _server(server)},
        "channels": {one.name: _channel(one, server) for one in found},
        "operations": operations(found),
        "components": {
            "messages": messages(bodies),
            "schemas": bodies | HEADERS,
            "correlationIds": {CORRELATION: {"location": "$message.header#/correlation_id"}},
            "securitySchemes": {"user": {"type": "userPassword", "description": "A user of RabbitMQ."}},
        },
    }


def _server(server: Server) -> dict[str, Any]:
    return {
        "host": server.host,
        "protocol": "amqps" if server.tls else "amqp",
        "protocolVersion": "0.9.1",
        "pathname": f"/{server.vhost.removeprefix('/')}",
        "description": "RabbitMQ 3.10 or newer.",
        "security": [{"$ref": "#/components/securitySchemes/user"}],
    }


def _channel(channel: DocumentChannel, server: Server) -> dict[str, Any]:
    named = re.findall(r"\{(\w+)\}", channel.address or "")
    kind = "exchange" if "exchange" in channel.binding else "queue"
    binding = channel.binding | {kind: channel.binding[kind] | {"vhost": server.vhost}}
    return {
        "address": channel.address,
        "description": channel.description,
        "messages": {one: {"$ref": f"#/components/messages/{one}"} for one in channel.messages},
        **({"parameters": {name: {"description": PARAMETERS[name]} for name in named}} if named else {}),
        "bindings": {"amqp": binding},
        **({"x-internal": True} if channel.internal else {}),
    }
