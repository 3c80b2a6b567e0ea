"""Turns expected errors into messages: a code, a sentence, and what to do next; never a traceback."""

import json
from dataclasses import asdict, dataclass, field

from rich.text import Text

from consumer.broker.dead_letter_queue import NoSuchDeadLetter
from consumer.broker.errors import (
    BrokerError,
    BrokerForbids,
    BrokerRefused,
    BrokerUnreachable,
    BrokerUntrusted,
    NoExchange,
    NotPermitted,
    PublishFailed,
)
from consumer.cli.exit_codes import ExitCode
from consumer.cli.screen import problems, shown, warn, write_json
from consumer.settings import ConfigurationError
from schemas.base import Json
from schemas.errors import (
    AccessRefused,
    CannotConnect,
    ClientErrorCode,
    Disconnected,
    ErrorCode,
    Forbidden,
    InvalidArgument,
    NotRouted,
    NotRoutedReason,
    SessionsError,
)

HINTS: dict[ErrorCode | ClientErrorCode, str] = {
    ErrorCode.SESSION_NOT_FOUND: "'mcp-sessions sessions list' shows what is open; 'tools call --service' opens a "
    "session. After a worker was killed, its sessions open again within seconds.",
    ErrorCode.SERVICE_NOT_FOUND: "'mcp-sessions services list' shows what the workers offer.",
    ErrorCode.TOOL_NOT_FOUND: "'mcp-sessions tools list SESSION' shows its tools.",
    ClientErrorCode.NO_REPLY: "Is a worker running? 'mcp-sessions workers list' tells. A tool call may have been "
    "executed: repeat it with the same --key, if it had one.",
    ErrorCode.START_FAILED: "'mcp-sessions services check' tries the services on this machine.",
    ErrorCode.CAPACITY: "'mcp-sessions workers list' shows how full they are.",
}
UNREACHABLE_HINT = "Is it running? Name another one with --url or AMQP_URL."
REFUSED_HINT = "Check user, password and vhost in --url or AMQP_URL; rabbitmqctl lists those of the broker."
FORBIDDEN_HINT = "'mcp-sessions topology permissions' shows what each role needs."
NO_DEAD_LETTER_HINT = "'mcp-sessions dead-letters list' shows the dead letters."
NO_WORKER_RUNS_HINT = "Start one: mcp-sessions worker."


NO_WORKER_HINT = "'mcp-sessions workers list' shows who is present."


class NoSuchWorker(LookupError):
    """No worker of that id is present."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that a person can do something about."""

    exit_code: ExitCode
    code: str
    message: str
    retryable: bool = False
    details: Json = field(default_factory=dict)
    hint: str = ""


def failure_of(error: Exception) -> Failure | None:
    """Return the message for an error; None if it is a bug of this program."""
    match error:
        case ConfigurationError():
            faults = [_known(asdict(fault)) for fault in error.faults]
            details = {"faults": faults} | ({"warnings": list(error.warnings)} if error.warnings else {})
            return Failure(ExitCode.USAGE, "BAD_CONFIGURATION", _first_line(error), details=details)
        case AccessRefused() | BrokerRefused():
            return Failure(ExitCode.UNREACHABLE, "BROKER_REFUSED", str(error), hint=REFUSED_HINT)
        case BrokerForbids():
            return Failure(ExitCode.ERROR, "ACCESS_REFUSED", str(error), hint=FORBIDDEN_HINT)
        case CannotConnect(retryable=False) | BrokerUntrusted():
            return Failure(ExitCode.UNREACHABLE, "BROKER_UNREACHABLE", str(error))
        case CannotConnect() | BrokerUnreachable():
            return Failure(ExitCode.UNREACHABLE, "BROKER_UNREACHABLE", str(error), True, hint=UNREACHABLE_HINT)
        case NotRouted(details={"reason": NotRoutedReason.NO_EXCHANGE}) | NoExchange():
            return Failure(ExitCode.ERROR, "NO_EXCHANGE", str(error), True)
        case NotRouted() | PublishFailed():
            reason = error.details.get("reason") if isinstance(error, NotRouted) else None
            hint = NO_WORKER_RUNS_HINT if reason == NotRoutedReason.NO_WORKER else ""
            return Failure(ExitCode.ERROR, "NOT_ROUTED", str(error), True, hint=hint)
        case Forbidden() | NotPermitted():
            return Failure(ExitCode.ERROR, "ACCESS_REFUSED", str(error), hint=FORBIDDEN_HINT)
        case NoSuchDeadLetter() if "there is no queue" in str(error):
            return Failure(ExitCode.ERROR, "NO_DEAD_LETTER", str(error))
        case NoSuchDeadLetter():
            return Failure(ExitCode.ERROR, "NO_DEAD_LETTER", str(error), hint=NO_DEAD_LETTER_HINT)
        case NoSuchWorker():
            return Failure(ExitCode.ERROR, "NO_WORKER", str(error), hint=NO_WORKER_HINT)
        case InvalidArgument():
            return Failure(ExitCode.USAGE, error.code.value, error.message)
        case Disconnected():
            return Failure(ExitCode.UNREACHABLE, "BROKER_UNAVAILABLE", str(error), error.retryable)
        case BrokerError():
            return Failure(ExitCode.UNREACHABLE, "BROKER_UNAVAILABLE", str(error), True)
        case SessionsError(code=code, message=message, retryable=retryable):
            return Failure(ExitCode.ERROR, code.value, message, retryable, error.details, HINTS.get(code, ""))
        case _:
            return None


EMPTY = (None, "")


def _known(details: Json) -> Json:
    """Return details without empty ones, such as the signal of a process that exited normally."""
    return {name: value for name, value in details.items() if value not in EMPTY}


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].removesuffix(":")


def tell(failure: Failure, *, as_json: bool) -> None:
    """Print the error: on stderr for people, on stdout for programs."""
    if as_json:
        error = {
            "code": failure.code,
            "message": failure.message,
            "retryable": failure.retryable,
            "details": failure.details,
        }
        write_json({"error": error})
        return
    screen = problems()
    screen.print(Text.assemble((failure.code, "bold red"), ": ", shown(failure.message, lines=True)), soft_wrap=True)
    for name, value in _known(failure.details).items():
        if str(value) in failure.message:
            continue  # said already
        if name == "faults":
            for fault in value:
                if "key" not in fault:
                    continue  # a worker's: its message names every field
                screen.print(Text(shown(f"  {fault['key']}: {fault['problem']}")), soft_wrap=True)
                if "meaning" in fault:
                    screen.print(Text(shown(f"    {fault['meaning']}"), style="dim"), soft_wrap=True)
            continue
        if name == "warnings":
            for warning in value:
                warn(warning)
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        separator = "\n    " if "\n" in text.strip() else " "
        indented = shown(text.strip(), lines=True).replace("\n", "\n    ")
        screen.print(Text.assemble((f"  {name}:", "dim"), separator, indented), soft_wrap=True)
    if failure.hint:
        screen.print(Text(failure.hint, style="dim"), soft_wrap=True)
