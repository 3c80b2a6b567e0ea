"""Exchanges of the simulated broker."""

from functools import lru_cache
from typing import Any

Key = tuple[str, str, tuple[tuple[str, Any], ...]]
"""A binding of one exchange: queue, routing key, arguments."""


@lru_cache(maxsize=4096)
def topic_matches(pattern: str, key: str) -> bool:
    """Whether a routing key fits a topic's pattern: ``*`` is one word, ``#`` any number of them."""
    return _fits(tuple(pattern.split(".")) if pattern else (), tuple(key.split(".")) if key else ())


def _fits(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_fits(pattern[1:], words[count:]) for count in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _fits(pattern[1:], words[1:])


class Exchange:
    """One exchange and its bindings."""

    def __init__(self, name: str, kind: str, arguments: dict[str, Any]) -> None:
        self.name = name
        self.kind = kind
        self.arguments = arguments
        self.bindings: dict[Key, None] = {}
        self._by_key: dict[str, dict[str, int]] = {}

    def bind(self, queue: str, routing_key: str, arguments: dict[str, Any]) -> None:
        one = (queue, routing_key, tuple(sorted(arguments.items())))
        if one not in self.bindings:
            self.bindings[one] = None
            queues = self._by_key.setdefault(routing_key, {})
            queues[queue] = queues.get(queue, 0) + 1

    def unbind(self, queue: str, routing_key: str, arguments: dict[str, Any]) -> None:
        self._drop((queue, routing_key, tuple(sorted(arguments.items()))))

    def _drop(self, one: Key) -> None:
        if one not in self.bindings:
            return
        del self.bindings[one]
        queue, routing_key, _ = one
        queues = self._by_key[routing_key]
        queues[queue] -= 1
        if not queues[queue]:
            del queues[queue]
        if not queues:
            del self._by_key[routing_key]

    def forget(self, queue: str) -> None:
        """A queue has gone."""
        for one in [one for one in self.bindings if one[0] == queue]:
            self._drop(one)

    def route(self, routing_key: str, headers: dict[str, Any]) -> list[str]:
        """The queues that get a message, each once."""
        match self.kind:
            case "direct":
                return list(self._by_key.get(routing_key, ()))
            case "fanout":
                return list(dict.fromkeys(queue for queue, _, _ in self.bindings))
            case "topic":
                fitting = (queue for queue, pattern, _ in self.bindings if topic_matches(pattern, routing_key))
                return list(dict.fromkeys(fitting))
            case _:
                fitting = (queue for queue, _, arguments in self.bindings if _headers_fit(dict(arguments), headers))
                return list(dict.fromkeys(fitting))


def _headers_fit(arguments: dict[str, Any], headers: dict[str, Any]) -> bool:
    wanted = {name: value for name, value in arguments.items() if not name.startswith("x-")}
    found = [headers.get(name) == value if value is not None else name in headers for name, value in wanted.items()]
    return any(found) if arguments.get("x-match") == "any" else all(found)
