"""Opening sessions: from a plan, a command or a recipe to processes that run."""

import asyncio
from typing import Literal, cast

from consumer.calls.context import Context, Starter, ToolProcess
from consumer.calls.holdings import CallSession, OwnedCall
from consumer.calls.wanted import Wanted
from consumer.sessions import SessionManager
from schemas.errors import SessionsError

IfExists = Literal["replace", "keep", "reject"]


class Opening:
    """Opens sessions, those of one call at once."""

    def __init__(self, context: Context, sessions: SessionManager[ToolProcess], start: Starter) -> None:
        self._context = context
        self._sessions = sessions
        self._start = start

    async def open_all(
        self, call: OwnedCall, wanted: list[Wanted], *, if_exists: str
    ) -> list[CallSession | SessionsError]:
        """Open all, or as many as can be: the result has a session or an error for each."""
        return list(await asyncio.gather(*(self._open(call, one, cast("IfExists", if_exists)) for one in wanted)))

    async def _open(self, call: OwnedCall, wanted: Wanted, if_exists: IfExists) -> CallSession | SessionsError:
        try:
            service = self._context.service(wanted.service_name)
            reserved = call.rings.reserved(wanted.service_name) if call.rings is not None else None
            opened = await self._sessions.open_session(
                wanted.session_id,
                wanted.service_name,
                lambda: self._start(wanted.service_name),
                wanted.timeout or service.timeout,
                wanted.metadata,
                if_exists=if_exists,
                restored=wanted.restored,
                created_at=wanted.created_at,
                reserved=reserved,
            )
        except SessionsError as error:
            return error
        if opened.created:
            kept = reserved is not None and reserved.kept
            opened.session.record.start_kind = "reserved" if kept else opened.session.process.start_kind
        return opened.session
