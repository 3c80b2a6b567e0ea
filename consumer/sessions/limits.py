"""The limits on the number and the age of sessions, and the count of places taken."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from schemas.errors import ServiceSessionLimit, SessionLimit
from schemas.ids import ServiceName


class LimitSettings(Protocol):
    """Any object with the keys of ``[session]`` as attributes; ``SessionLimits`` describes them."""

    @property
    def default_timeout(self) -> float:
        """Seconds."""

    @property
    def cleanup_interval(self) -> float:
        """Seconds."""

    @property
    def max_sessions_per_service(self) -> int:
        """A number of sessions."""

    @property
    def max_total_sessions(self) -> int:
        """A number of sessions."""

    @property
    def max_lifetime(self) -> float | None:
        """Seconds, or None for ever."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """SignalWire's ``session`` settings. Durations are seconds.

    ``cleanup_interval`` does not delay expiry. It is how often processes are checked that may have died unnoticed.
    ``max_lifetime`` None means no limit. ``per_service`` overrides ``max_sessions_per_service``.
    """

    default_timeout: float = 300
    cleanup_interval: float = 60
    max_sessions_per_service: int = 100
    max_total_sessions: int = 500
    max_lifetime: float | None = 14_400
    per_service: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("default_timeout", "cleanup_interval", "max_lifetime"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be more than 0 seconds, is {value}")
        for name in ("max_sessions_per_service", "max_total_sessions"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, is {getattr(self, name)}")

    @classmethod
    def from_config(cls, config: "Mapping[str, Any] | LimitSettings | None") -> "SessionLimits":
        """Return the limits in a SignalWire configuration or a settings object, or the defaults.

        In a mapping only ``session.*`` and ``services.<name>.max_sessions`` are read.
        """
        match config:
            case None:
                return cls()
            case SessionLimits():
                return config
            case Mapping():
                known = {f.name for f in fields(cls)} - {"per_service"}
                section = {key: value for key, value in config.get("session", {}).items() if key in known}
                services = config.get("services", {})
                own = {name: said["max_sessions"] for name, said in services.items() if "max_sessions" in said}
                return cls(**section, per_service=own)
            case _:
                return cls(
                    default_timeout=config.default_timeout,
                    cleanup_interval=config.cleanup_interval,
                    max_sessions_per_service=config.max_sessions_per_service,
                    max_total_sessions=config.max_total_sessions,
                    max_lifetime=config.max_lifetime,
                )

    def max_sessions_of(self, service_name: ServiceName) -> int:
        """Return the most sessions of the service if no other service has any."""
        return min(self.per_service.get(service_name, self.max_sessions_per_service), self.max_total_sessions)


class Places:
    """Counts the places of open and opening sessions. It refuses, and never waits.

    ``freed`` is called with each place that is given back.
    """

    def __init__(self, limits: SessionLimits, freed: Callable[[], None] = lambda: None) -> None:
        self.limits = limits
        self._freed = freed
        self._taken: Counter[ServiceName] = Counter()
        self._total = 0

    def check(self, service_name: ServiceName, freed: ServiceName | None = None) -> None:
        """Check that there is a place. That of a session to be replaced (of service ``freed``) counts as free.

        Raises:
            SessionLimit: There are ``max_total_sessions``.
            ServiceSessionLimit: The service has all it may have.
        """
        total = self._total - (freed is not None)
        if total >= (most := self.limits.max_total_sessions):
            raise SessionLimit(f"maximum session limit ({most}) reached", sessions=total, limit=most)
        count = self._taken[service_name] - (freed == service_name)
        if count >= (most := self.limits.max_sessions_of(service_name)):
            raise ServiceSessionLimit(
                f"maximum session limit ({most}) reached for service {service_name}",
                service_name=service_name,
                sessions=count,
                limit=most,
            )

    def take(self, service_name: ServiceName) -> None:
        """Take a place, which ``check`` has promised."""
        self._taken[service_name] += 1
        self._total += 1

    def give_back(self, service_name: ServiceName) -> None:
        """Give a place back."""
        self._taken[service_name] -= 1
        self._total -= 1
        if not self._taken[service_name]:
            del self._taken[service_name]
        self._freed()

    def count(self, service_name: ServiceName | None = None) -> int:
        """Return the places taken, of one service or in all."""
        return self._total if service_name is None else self._taken[service_name]
