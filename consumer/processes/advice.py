"""Advice for a service whose start takes long. Pure."""

from pathlib import Path

from consumer.processes.service import MCPService

SLOW_START = 5.0
"""After how many seconds a start is too slow for a caller on the phone."""

GUIDE = "docs/guides/tools.md"
_FETCHERS = {"npx": (), "bunx": (), "uvx": (), "pipx": ("run",), "uv": ("tool", "run", "x"), "npm": ("exec", "x"),
             "pnpm": ("dlx",), "yarn": ("dlx",)}  # fmt: skip
"""Programs that fetch a package and run it. If a program does other things too, the words that select fetching."""


def fetcher_of(service: MCPService) -> str | None:
    """Return the program that fetches the service's package at each start, if its command is such a program."""
    program, *arguments = service.command or [""]
    name = Path(program).name.removesuffix(".cmd").removesuffix(".exe")
    words = _FETCHERS.get(name)
    if words is None or "--offline" in arguments or (words and (not arguments or arguments[0] not in words)):
        return None
    return " ".join([name, *arguments[:1]]) if words else name


def advice(service: MCPService, seconds: float, *, failed: bool = False) -> str:
    """Return advice about a start that took ``seconds``; empty if it was fast enough, or if nothing here helps.

    A server whose start has ``failed`` must work before it can be kept warm.
    """
    fetcher = fetcher_of(service)
    if fetcher is not None:
        return (
            f"{fetcher} downloads its package for each session, because each session has its own HOME: install the "
            f"package once and name its program ({GUIDE}, 'npx and uvx')"
        )
    if seconds <= SLOW_START:
        return ""
    if service.url is not None:
        return "the server at the URL responds slowly; its own log may say why"
    if failed:
        return ""
    return f"keep servers warm, or fork them if this one is in Python ({GUIDE}, 'Ready before the call')"
