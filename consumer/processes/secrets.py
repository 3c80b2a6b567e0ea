"""The secrets in a service's configuration. Pure."""

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

from consumer.processes.service import MCPService

_SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|auth|cred|cookie|dsn|sign|session", re.IGNORECASE)
"""Names of variables and options that contain secrets. The pattern is wider than the one that masks logs."""

_SCHEME = re.compile(r"^(bearer|basic|token|digest)\s+", re.IGNORECASE)
_URL = re.compile(r"\w[\w+.-]*://\S+")
_LIKE_A_KEY = re.compile(r"(?=.*\d)[\w~+=][\w.~+/=-]{15,}")
"""A value that counts as a key under any name, or as a part of a URL's path, where hosted MCP servers have keys."""


def origin(service: MCPService) -> str:
    """Return the scheme, host and port of the service's URL: the part without secrets."""
    try:
        parts = urlsplit(service.url or "")
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "its URL"
    return f"{parts.scheme}://{parts.hostname or ''}{port}"


def secrets_of(service: MCPService) -> set[str]:
    """Return the secrets in the service's URL, headers, environment and command."""
    found: set[str] = set()
    if service.url:
        found |= set(_of_url(service.url))
    for name, value in (*service.headers.items(), *service.env.items()):
        credential = _SCHEME.sub("", value)
        if _SECRET_NAME.search(name) or credential != value or _LIKE_A_KEY.fullmatch(value):
            found |= {value, credential}
        found |= _of_urls_in(value)
    found |= set(_of_command(service.command or []))
    return found


def _of_command(words: list[str]) -> Iterator[str]:
    before = ""
    for word in words:
        name, _, value = word.partition("=")
        if name.startswith("-") and value and _SECRET_NAME.search(name):
            yield value
        elif before.startswith("-") and "=" not in before and _SECRET_NAME.search(before):
            yield word
        yield from _of_urls_in(word)
        before = word


def _of_urls_in(text: str) -> set[str]:
    return {secret for url in _URL.findall(text) for secret in _of_url(url)}


def _of_url(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    userinfo, at, _ = parts.netloc.rpartition("@")
    if at:
        yield userinfo + at
        yield unquote(userinfo)  # what basic authentication sends
        yield userinfo.partition(":")[2]
    for _, value in parse_qsl(parts.query):
        yield value
    for segment in parts.path.split("/"):
        if _LIKE_A_KEY.fullmatch(segment):
            yield segment
