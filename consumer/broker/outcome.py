"""What may become of a delivery. Handlers decide by returning one of these; ``settling`` acts, in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from consumer.broker.message import Message
from schemas.errors import ErrorCode
from schemas.replies import Reply


@dataclass(frozen=True, slots=True)
class Done:
    """Handled; the requester, if any, gets ``reply``: a reply, or the body of one that is encoded already.

    What is ``routine`` is told to who debugs only: nothing has changed, and programs ask it again and again. ``about``
    is what the log line of the delivery says besides, such as the tool; ``code`` and ``problem`` are the error of a
    reply that is written already.
    """

    reply: Reply | bytes | None = None
    what: str = "done"
    routine: bool = False
    about: Mapping[str, object] = field(default_factory=dict)
    code: str | None = None
    problem: str | None = None

    def with_about(self, about: Mapping[str, object]) -> "Done":
        """Return the same outcome with more fields for its log line. Existing fields stay."""
        return Done(self.reply, self.what, self.routine, {**about, **self.about}, self.code, self.problem)

    @property
    def error_code(self) -> str | None:
        """The error code of the reply, if it is an error."""
        if isinstance(self.reply, Reply) and self.reply.error is not None:
            return self.reply.error.code.value
        return self.code

    @property
    def error_told(self) -> str | None:
        """The sentence of that error; none of a server's own error, whose words may be the caller's."""
        if self.error_code == ErrorCode.MCP_ERROR:
            return None
        if isinstance(self.reply, Reply) and self.reply.error is not None:
            return self.reply.error.message
        return self.problem


@dataclass(frozen=True, slots=True)
class Forward:
    """It belongs to another consumer: forward it, then acknowledge it."""

    exchange: str
    routing_key: str
    message: Message
    what: str = "forwarded"


@dataclass(frozen=True, slots=True)
class ToDeadLetters:
    """It cannot be handled: it becomes a dead letter with the reason, and the requester gets the error."""

    reason: str
    problem: str
    reply: Reply | None = None
    what: str = field(default="dead_lettered", init=False)


@dataclass(frozen=True, slots=True)
class Hold:
    """It stays unacknowledged, on purpose; somebody keeps the delivery and settles it later."""

    what: str = field(default="held", init=False)


@dataclass(frozen=True, slots=True)
class Requeue:
    """It could not be dealt with now: back to the queue."""

    problem: str
    what: str = field(default="requeued", init=False)


Outcome = Done | Forward | ToDeadLetters | Hold | Requeue


def told_about(outcome: Outcome, **about: object) -> Outcome:
    """Return the same outcome with more fields for its log line."""
    return outcome.with_about(about) if isinstance(outcome, Done) else outcome


async def decided(outcome: Outcome) -> Outcome:
    """Wrap a decision that is already known for a caller that awaits one."""
    return outcome
