"""Parses the time of an event, in the formats of the platforms.

The unit is a matter of the field, never guessed from the value: SignalWire alone uses seconds, milliseconds and
microseconds. A missing, zero ("never"), unreadable or absurd time becomes None, because a wrong clock must not lose a
call.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

GREGORIAN_OFFSET = 62_167_219_200
"""Seconds from the year 0, where Erlang (Kazoo) counts from, to 1970."""

EARLIEST = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp())
LATEST = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())


def seconds(value: object) -> datetime | None:
    """Parse Unix time in seconds, as number or text."""
    return _epoch(value, per_second=1)


def milliseconds(value: object) -> datetime | None:
    """Parse Unix time in milliseconds, as number or text."""
    return _epoch(value, per_second=1_000)


def microseconds(value: object) -> datetime | None:
    """Parse Unix time in microseconds, as number or text."""
    return _epoch(value, per_second=1_000_000)


def gregorian_seconds(value: object) -> datetime | None:
    """Parse seconds since the year 0, as Kazoo counts."""
    return _epoch(value, per_second=1, offset=GREGORIAN_OFFSET)


def iso(value: object) -> datetime | None:
    """Parse ISO 8601. A time without an offset is taken as UTC."""
    if not isinstance(value, str):
        return None
    try:
        return _plausible(datetime.fromisoformat(value.strip()))
    except ValueError:
        return None


def rfc2822(value: object) -> datetime | None:
    """The date of mails and of cXML callbacks: ``Tue, 11 Mar 2025 12:10:00 +0000``."""
    if not isinstance(value, str):
        return None
    try:
        return _plausible(parsedate_to_datetime(value))
    except (ValueError, TypeError, IndexError, OverflowError):
        # the parser of the standard library promises ValueError and has leaked the others on odd input
        return None


def _epoch(value: object, *, per_second: int, offset: int = 0) -> datetime | None:
    number = _number(value)
    if number is None or not (EARLIEST + offset) * per_second <= number < (LATEST + offset) * per_second:
        return None
    return datetime.fromtimestamp((number - offset * per_second) / per_second, UTC)


def _number(value: object) -> int | float | None:
    if isinstance(value, str):
        try:
            return int(value) if value.isdecimal() else float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) else None


def _plausible(moment: datetime) -> datetime | None:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC) if EARLIEST <= aware.timestamp() < LATEST else None
