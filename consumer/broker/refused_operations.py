"""Names the permission that a user lacks. RabbitMQ 3.10 itself names only the queue or exchange."""

import re
from typing import Final, Literal

from aiormq.exceptions import ChannelAccessRefused

from consumer.broker.errors import NotPermitted
from consumer.observability.reasons import reason_of

Operation = Literal["declare", "look", "delete", "bind", "consume", "purge", "publish", "other"]

_NEEDED: Final[dict[tuple[Operation, str], str]] = {
    ("declare", "queue"): "configure",
    ("declare", "exchange"): "configure",
    ("delete", "queue"): "configure",
    ("delete", "exchange"): "configure",
    ("look", "queue"): "read or write",  # from RabbitMQ 4.3 on; older ones ask for none
    ("look", "exchange"): "read or write",
    ("bind", "queue"): "write",
    ("bind", "exchange"): "read",
    ("bind", "topic"): "read (of topics)",
    ("consume", "queue"): "read",
    ("purge", "queue"): "read",
    ("publish", "exchange"): "write",
    ("publish", "topic"): "write (of topics)",
}
"""The permission for each operation and kind of name."""

_REFUSED: Final = re.compile(
    r"access to (?P<kind>queue|exchange|topic) '(?P<name>[^']*)'(?: in exchange '(?P<exchange>[^']*)')?"
    r" in vhost '(?P<vhost>[^']*)' refused for user '(?P<user>[^']*)'"
)


def not_permitted(error: ChannelAccessRefused, operation: Operation) -> NotPermitted:
    """Return the error for an operation that RabbitMQ refused; it names the missing permission if it is known."""
    reason = reason_of(error)
    found = _REFUSED.search(reason)
    needed = _NEEDED.get((operation, found["kind"])) if found else None
    if found is None or needed is None:
        return NotPermitted(f"the broker refused it: {reason}")
    where = f" of exchange {found['exchange']!r}" if found["exchange"] else ""
    return NotPermitted(
        f"the user {found['user']!r} lacks the permission {needed} for {found['kind']} "
        f"{found['name']!r}{where} in the vhost {found['vhost']!r} (ACCESS_REFUSED)"
    )
