"""Prints dead letters for people and as JSON."""

import base64
import json
import math
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from consumer.cli.screen import Row, age, answers, facts, say, shown, table, write_json

if TYPE_CHECKING:
    from consumer.broker.dead_letter import DeadLetter
    from consumer.broker.dead_letter_queue import Look, Replayed


def fields(letter: "DeadLetter") -> dict[str, Any]:
    """Return the fields of a message that a list shows."""
    return {
        "id": letter.id,
        "dead_lettered_at": None if letter.dead_lettered_at is None else letter.dead_lettered_at.isoformat(),
        "reason": letter.reason,
        "error": letter.error,
        "type": letter.message.type,
        "message_id": letter.message.message_id,
        "call": letter.call,
        "exchange": letter.origin.exchange,
        "routing_key": letter.origin.routing_key,
        "queue": letter.origin.queue,
        "size": letter.size,
    }


def whole(letter: "DeadLetter") -> dict[str, Any]:
    """Return the fields that a list leaves out. A body that is not text is in base64."""
    message = letter.message
    try:
        body = {"body": message.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(message.body).decode()}
    return {
        "content_type": message.content_type,
        "correlation_id": message.correlation_id,
        "timestamp": None if message.timestamp is None else message.timestamp.isoformat(),
        "headers": _plain(message.headers),
        **body,
    }


def _plain(value: Any) -> Any:
    """Return a header in JSON. A type that JSON lacks becomes text, and bytes that are no text are escaped."""
    match value:
        case dict():
            return {name: _plain(one) for name, one in value.items()}
        case list():
            return [_plain(one) for one in value]
        case bytes() | bytearray():
            return value.decode("utf-8", "backslashreplace")
        case datetime():
            return value.isoformat()
        case bool() | int() | str() | None:
            return value
        case float() if math.isfinite(value):
            return value
        case _:
            return str(value)


LONGEST = 60
"""The most characters of an id or a routing key in a list. A message may have 255 of each."""


def dead_letter_table(letters: "list[DeadLetter]") -> Table:
    """Return a table of messages without their bodies. ``show`` prints in full what this shortens."""
    rows: list[Row] = [
        [
            one.id,
            _age(one),
            size(one.size),
            "\n".join(shortened(word) for word in (one.message.type or "-", one.call) if word),
            "\n".join(filter(None, (one.reason, _from(one.origin.exchange, one.origin.routing_key), one.error))),
        ]
        for one in letters
    ]
    return table("ID", "AGE", "SIZE", "TYPE, CALL", "REASON, FROM", rows=rows, right=["AGE", "SIZE"], whole=["ID"])


def shortened(word: str) -> str:
    """Return a word of at most ``LONGEST`` characters, with its end, which distinguishes ids."""
    return word if len(word) <= LONGEST else f"{word[: LONGEST - 13]}…{word[-12:]}"


def size(count: int) -> str:
    """Format a number of bytes for people."""
    for unit, bytes_ in (("M", 1 << 20), ("K", 1 << 10)):
        if count >= bytes_:
            return f"{count / bytes_:.1f}{unit}"
    return f"{count}B"


def _age(letter: "DeadLetter") -> str:
    return age(letter.dead_lettered_at.isoformat()) if letter.dead_lettered_at else "?"


def _from(exchange: str, key: str) -> str:
    return f"{exchange or '(default)'} {shortened(key)}".rstrip()


def counted(count: int) -> str:
    """Return the number of messages in words."""
    return "1 message" if count == 1 else f"{count} messages"


def tell_summary(look: "Look", reasons: "Counter[str]", listed: int) -> None:
    """Print the number of dead letters by reason."""
    if not reasons:
        say("No dead letter matches." if look.seen else "There are no dead letters.")
    else:
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        more = f", {listed} of them listed (--limit)" if listed < reasons.total() else ""
        say(f"{counted(reasons.total())}: {told}{more}")
    if look.left:
        say(f"{look.left} more behind them were not looked at: replay or drop some first.", style="yellow")


def show_whole(letter: "DeadLetter") -> None:
    """Print everything about a message, for people."""
    message, screen = letter.message, answers()
    screen.print(
        facts(
            ("id", letter.id),
            (
                "since",
                f"{_age(letter)} ago, at {letter.dead_lettered_at}"
                if letter.dead_lettered_at
                else "at an unknown time",
            ),
            ("reason", letter.reason),
            ("error", letter.error),
            ("from", f"{letter.origin.exchange or '(default)'} {letter.origin.routing_key}".rstrip()),
            ("queue", letter.origin.queue),
            ("call", letter.call or "-"),
            ("type", message.type or "-"),
            ("message id", message.message_id or "-"),
            ("correlation id", message.correlation_id or "-"),
            ("content type", message.content_type or "-"),
            ("sent", str(message.timestamp or "-")),
            ("size", size(letter.size)),
        )
    )
    screen.print()
    screen.print(facts(*((name, str(_plain(value))) for name, value in sorted(message.headers.items()))))
    screen.print()
    screen.print(Text(shown(_readable(message.body), lines=True)), soft_wrap=True)


def _readable(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return base64.encodebytes(body).decode().rstrip()
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return text


def tell_replayed(done: "list[Replayed]", *, watched: float, as_json: bool) -> None:
    """Print what happened to each message. ``watched``: how long (s) the queue was watched for them."""
    if as_json:
        told = [
            fields(one.letter)
            | {
                "to_exchange": one.exchange,
                "to_routing_key": one.routing_key,
                "problem": one.problem,
                "dead_letter_again": None if one.again is None else fields(one.again),
            }
            for one in done
        ]
        write_json(
            {"replayed": [one for one in told if not one["problem"]], "kept": [one for one in told if one["problem"]]}
        )
        return
    if not done:
        say("No dead letter matches.")
        return
    rows: list[Row] = [[one.letter.id, one.letter.message.type or "-", _to(one), _became(one)] for one in done]
    answers().print(table("ID", "TYPE", "TO", "", rows=rows, whole=["ID"]))
    kept = sum(bool(one.problem) for one in done)
    again = sum(one.again is not None for one in done)
    say(f"Replayed {counted(len(done) - kept)}." + (f" {counted(kept)} stay dead letters." if kept else ""))
    if again:
        are = "is" if again == 1 else "are"
        say(f"{counted(again)} could not be handled this time either, and {are} back among the dead letters.")
    elif len(done) > kept and watched:
        say(f"None became a dead letter again within {watched:g} s.")


def _to(one: "Replayed") -> str:
    if one.problem and not one.exchange:
        return "-"  # nobody can say where it should go
    return _from(one.exchange, one.routing_key)


def _became(one: "Replayed") -> str:
    if one.again is None:
        return one.problem or "replayed"
    again = one.again
    return f"a dead letter again as {again.id}: {again.reason}" + (f"\n{again.error}" if again.error else "")
