"""``subscriptions/listen`` of the stateless era: a request whose answer is a stream of changes.

The gateway subscribes at the session's server (``resources.subscribe``). The server's changes arrive as events of the
session, and each one that the client wants becomes a notification on its stream. The stream belongs to the call. If a
session is lost, the stream goes on with the next one, and the client is notified that everything has changed. It ends
with the call, or when this gateway shuts down.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from consumer.client import SessionClient
from consumer.gateway.exchange import only_listens
from consumer.gateway.known_services import KnownServices
from consumer.gateway.mcp import protocol, rpc_messages
from consumer.gateway.mcp.changes import SessionChanges
from consumer.gateway.mcp.client_request import ClientRequest
from consumer.gateway.mcp.rpc_messages import INVALID_PARAMS, REFUSED, RpcError
from consumer.settings.gateway_settings import GatewaySettings
from schemas.base import Json
from schemas.errors import McpError, SessionsError
from schemas.events import TERMINAL, CloudEvent, EndReason, SessionEventType

log = structlog.get_logger(__name__)

MAX_RESOURCES: Final = 256
"""The most resources that one stream may subscribe to: as many as a session can."""

LISTS: Final = {"tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged"}
"""The lists that may change, and their names in a filter."""

Change = tuple[str | None, str | None]
"""A change: of a list, or else of a resource by its URI."""

_ENDS: Final = frozenset(f"mcp.session.{what.value}" for what in TERMINAL)
_CREATED: Final = f"mcp.session.{SessionEventType.CREATED.value}"


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """The changes that a stream reports: of lists, and of resources by their URIs."""

    lists: frozenset[str]
    uris: tuple[str, ...]

    def written(self) -> Json:
        """Return the filter in MCP's form, without unset fields."""
        told: Json = {LISTS[name]: True for name in LISTS if name in self.lists}
        return told | ({"resourceSubscriptions": list(self.uris)} if self.uris else {})


def wanted(notifications: Any) -> ChangeFilter:
    """Return the filter of a request.

    Raises:
        RpcError: it is not valid.
    """
    if not isinstance(notifications, dict):
        raise RpcError(INVALID_PARAMS, "params.notifications must be an object")
    uris = notifications.get("resourceSubscriptions") or ()
    if not isinstance(uris, list | tuple) or not all(isinstance(uri, str) and uri for uri in uris):
        raise RpcError(INVALID_PARAMS, "params.notifications.resourceSubscriptions must be a list of URIs")
    if len(uris) > MAX_RESOURCES:
        raise RpcError(INVALID_PARAMS, f"one stream can have at most {MAX_RESOURCES} resources")
    lists = frozenset(name for name, flag in LISTS.items() if notifications.get(flag) is True)
    return ChangeFilter(lists, tuple(dict.fromkeys(uris)))


class Listening:
    """One stream: its filter, and the changes that were not sent yet. Each change is kept once."""

    def __init__(self, told_of: ChangeFilter) -> None:
        self._filter = told_of
        self._changed: dict[Change, None] = {}
        self._woken = asyncio.Event()
        self._was_over = False
        self.opened_anew = False
        """Whether a new session has replaced the former one, and is not subscribed yet."""
        self.over = False

    def hear(self, event: CloudEvent) -> None:
        """Take an event of the session."""
        said = event.data
        if event.type == "mcp.session.list_changed":
            if (name := str(said.get("list"))) in self._filter.lists:
                self._note((name, None))
        elif event.type == "mcp.session.resource_updated":
            if (uri := str(said.get("uri"))) in self._filter.uris:
                self._note((None, uri))
        elif event.type == _CREATED and (self._was_over or said.get("restored")):
            self._was_over, self.opened_anew = False, True
            self._woken.set()
        elif event.type in _ENDS:
            self._was_over = True
            if said.get("reason") == EndReason.CALL_ENDED.value:
                self.end()

    def _note(self, change: Change) -> None:
        self._changed[change] = None
        self._woken.set()

    def all_changed(self) -> None:
        """Mark everything as changed, because another session has replaced the former one."""
        self.opened_anew = False
        self._changed |= {(name, None): None for name in LISTS if name in self._filter.lists}
        self._changed |= {(None, uri): None for uri in self._filter.uris}

    def end(self) -> None:
        """Send the remaining messages, and then no more."""
        self.over = True
        self._woken.set()

    async def changed(self) -> list[Change]:
        """Wait for a change or the end. Return what has changed."""
        await self._woken.wait()
        self._woken.clear()
        return self.taken()

    def taken(self) -> list[Change]:
        """Return the changes that were not sent yet."""
        changed, self._changed = list(self._changed), {}
        return changed


class SubscriptionStreams:
    """Answers ``subscriptions/listen``."""

    def __init__(
        self, client: SessionClient, catalogue: KnownServices, settings: GatewaySettings, changes: SessionChanges
    ) -> None:
        self._client = client
        self._catalogue = catalogue
        self._settings = settings
        self._changes = changes

    async def listen(self, asked: ClientRequest) -> Json:
        """Send changes on the request's stream until the call ends.

        Raises:
            RpcError: the filter is not valid, no call is named, or the client accepts no stream (406).
            SessionsError: the call has no session, and none can be opened.
        """
        if not asked.hearing.streams:
            raise RpcError(
                REFUSED, "the response is a stream: the Accept header must allow text/event-stream", status=406
            )
        wants = await self._offered(asked.service, wanted(asked.call.params.get("notifications")))
        listening = Listening(wants)
        about = {protocol.SUBSCRIPTION_ID: asked.call.id}
        async with self._changes.heard(asked.the_call(), asked.service, listening):
            told = ChangeFilter(wants.lists, tuple(await self._subscribed(asked, wants)))
            _tell(asked, "notifications/subscriptions/acknowledged", {"notifications": told.written()}, about)
            only_listens(asked.request)
            while True:
                changed = await listening.changed()
                if listening.opened_anew:
                    await self._subscribe_again(asked, told)
                    listening.all_changed()
                    changed = listening.taken()
                for changed_list, uri in changed:
                    if uri is None or uri in told.uris:
                        _tell(asked, *protocol.change(changed_list, uri), about)
                await asked.hearing.taken()
                if listening.over:
                    return {"_meta": about}

    async def _offered(self, service: str, wants: ChangeFilter) -> ChangeFilter:
        """Return the part of a filter that the service's server can report."""
        can = protocol.offered(await self._catalogue.description(service), "stateless")
        lists = frozenset(name for name in wants.lists if can.get(name, {}).get("listChanged"))
        return ChangeFilter(lists, wants.uris if can.get("resources", {}).get("subscribe") else ())

    async def _subscribed(self, asked: ClientRequest, wants: ChangeFilter) -> Iterable[str]:
        """Subscribe at the session's server. Return the URIs of the resources whose changes it will report."""
        if not wants.uris:
            if wants.lists:
                await self._subscribe(asked, None)
            return ()
        told = []
        for uri in wants.uris:
            try:
                await self._subscribe(asked, uri)
            except McpError as error:
                log.debug("gateway.not_subscribed", uri=uri[:200], error=error.message)
            else:
                told.append(uri)
        return told

    async def _subscribe_again(self, asked: ClientRequest, told: ChangeFilter) -> None:
        """Subscribe at the server of the new session, as far as it supports this."""
        try:
            await self._subscribed(asked, told)
        except SessionsError as error:
            log.info("gateway.not_subscribed", call_id=asked.call_id, code=error.code.value, error=error.message)

    async def _subscribe(self, asked: ClientRequest, uri: str | None) -> None:
        await self._client.subscribe_resource(
            asked.the_call(),
            uri,
            service_name=asked.service,
            open=self._settings.open,
            reply_timeout=self._settings.call_timeout,
        )


def _tell(asked: ClientRequest, method: str, params: Json, about: Json) -> None:
    asked.hearing.tell(rpc_messages.notification(method, {**params, "_meta": about}))


__all__ = ["ChangeFilter", "Listening", "SubscriptionStreams", "wanted"]
