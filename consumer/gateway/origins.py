"""The sender and the address of a request: proxies, ``Host``, ``Origin``. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from consumer.gateway.problems import Refused
from consumer.settings.gateway_settings import GatewaySettings

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Addressed:
    """A request as its sender addressed it."""

    address: str
    """The sender's address: the one that a trusted proxy names, or else the connection's."""
    url: str
    """The public URL with its query, as the sender used it."""
    direct: bool
    """Whether it came from this machine, to a name of this machine, and says of no proxy in between."""


class RequestOrigins:
    """Trusts the configured proxies, and refuses foreign host names."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._proxies: tuple[IPv4Network | IPv6Network, ...] = settings.trusted_proxies
        self._public = settings.public_url.rstrip("/") if settings.public_url else None
        named = {name.casefold() for name in settings.allowed_hosts}
        if self._public:
            named.add(_name(urlsplit(self._public).netloc))
        self._checked = bool(named) or not settings.guarded
        self._hosts = named | LOOPBACK_NAMES | {settings.host.casefold()}
        self._origins = {origin.rstrip("/").casefold() for origin in settings.allowed_origins}

    def addressed(self, peer: str | None, scheme: str, target: str, headers: Mapping[str, str]) -> Addressed:
        """Return how a request was addressed. ``target`` is its path with its query, unchanged."""
        proxied = self._trusts(peer)
        said = _first(headers.get("x-forwarded-proto", "")) if proxied else ""
        scheme = said if said in ("http", "https") else scheme
        base = self._public or f"{scheme}://{self._host(peer, headers)}"
        forwarded = "x-forwarded-for" in headers or "forwarded" in headers
        return Addressed(
            address=self._sender(peer, headers.get("x-forwarded-for", "")) if proxied else peer or "",
            url=base + target,
            direct=not forwarded and _is_loopback(peer) and _is_local(self._host(peer, headers)),
        )

    def check(self, headers: Mapping[str, str], peer: str | None) -> None:
        """Check that a request is addressed to this gateway, and does not come from a foreign web page.

        Raises:
            Refused: 400 for an invalid ``Host``, 421 for an unknown one, 403 for an ``Origin`` that is not allowed.
        """
        host = self._host(peer, headers)
        if host and not _is_host(host):
            raise Refused(400, "the Host header is not a host name")
        if self._checked and _name(host) not in self._hosts:
            raise Refused(421, "the Host header is not a name of this gateway; add it to gateway.allowed_hosts")
        origin = headers.get("origin")
        if origin is None or origin.casefold() in self._origins:
            return
        if _origin_name(origin) not in self._hosts:
            raise Refused(403, "this Origin is not allowed; add it to gateway.allowed_origins")

    def _host(self, peer: str | None, headers: Mapping[str, str]) -> str:
        """Return the host that the sender addressed, with its port."""
        return _first((headers.get("x-forwarded-host") if self._trusts(peer) else None) or headers.get("host", ""))

    def _trusts(self, peer: str | None) -> bool:
        return bool(self._proxies) and _within(peer, self._proxies)

    def _sender(self, peer: str | None, forwarded_for: str) -> str:
        """Return the last address that is no trusted proxy's. Earlier ones can be forged."""
        hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()]
        for hop in reversed(hops):
            if not _within(hop, self._proxies):
                return hop if _address(hop) is not None else peer or ""
        return hops[0] if hops and _address(hops[0]) is not None else peer or ""


def _first(value: str) -> str:
    return value.partition(",")[0].strip()


_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[(?P<address>[0-9A-Fa-f:.]+)\])(?::[0-9]{0,5})?")


def _is_host(host: str) -> bool:
    """Return whether a text is valid in a URL as host and port."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    return found["address"] is None or _address(found["address"]) is not None


def _name(host: str) -> str:
    """Return a host without its port."""
    if host.startswith("["):
        return host.partition("]")[0][1:].casefold()
    return host.partition(":")[0].casefold()


def _is_local(host: str) -> bool:
    """Whether a host is this machine's loopback. A proxy that passes the name of the public URL on is told by it."""
    return _name(host) in LOOPBACK_NAMES or _is_loopback(_name(host))


def _origin_name(origin: str) -> str:
    """Return the host of an origin; empty if it is invalid."""
    try:
        return _name(urlsplit(origin).netloc)
    except ValueError:
        return ""


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _within(text: str | None, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    address = _address(text)
    return address is not None and any(address in network for network in networks)


def _is_loopback(text: str | None) -> bool:
    address = _address(text)
    return address is not None and address.is_loopback
