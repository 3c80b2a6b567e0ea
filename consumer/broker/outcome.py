"""The possible outcomes of a delivery. Handlers return one of these, and ``settling`` carries it out."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from consumer.broker.message import Message
from schemas.errors import ErrorCode
from schemas.replies import Reply


@dataclass(frozen=True, slots=True)
class Done:
    """The message is handled. The requester, if any, gets ``reply``: a reply, or the body of an encoded one.

    A ``routine`` request is logged at debug level only: it changes nothing, and programs repeat it often. ``about`` has
    more fields for the log line of the delivery, such as the tool. ``code`` and ``problem`` are the error of an encoded
    reply. ``failed_as`` is the word for what became of the message if the reply is an error.
    """

    reply: Reply | bytes | None = None
    what: str = "done"
    routine: bool = False
    about: Mapping[str, object] = field(default_factory=dict)
    code: str | None = None
    problem: str | None = None
    failed_as: str = "failed"

    def with_about(self, about: Mapping[str, object]) -> "Done":
        """Return the same outcome with more fields for its log line. Existing fields stay."""
        return dataclasses.replace(self, about={**about, **self.about})

    @property
    def word(self) -> str:
        """What became of the message: ``what``, or ``failed_as`` if the reply is an error."""
        return self.what if self.error_code is None else self.failed_as

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
    """The message belongs to another consumer. It is forwarded, then acknowledged."""

    exchange: str
    routing_key: str
    message: Message
    what: str = "forwarded"


@dataclass(frozen=True, slots=True)
class ToDeadLetters:
    """The message cannot be handled. It becomes a dead letter with the reason, and the requester gets the error."""

    reason: str
    problem: str
    reply: Reply | None = None
    what: str = field(default="dead_lettered", init=False)


@dataclass(frozen=True, slots=True)
class Hold:
    """The message stays unacknowledged on purpose. The handler keeps the delivery and settles it later."""

    what: str = field(default="held", init=False)


@dataclass(frozen=True, slots=True)
class Requeue:
    """The message could not be handled now, and goes back to the queue."""

    problem: str
    what: str = field(default="requeued", init=False)


Outcome = Done | Forward | ToDeadLetters | Hold | Requeue


def told_about(outcome: Outcome, **about: object) -> Outcome:
    """Return the same outcome with more fields for its log line."""
    return outcome.with_about(about) if isinstance(outcome, Done) else outcome


async def decided(outcome: Outcome) -> Outcome:
    """Wrap a decision that is already known for a caller that awaits one."""
    return outcome
