"""Logs at a worker's start how well its servers are isolated on this host."""

import os
from collections.abc import Iterable

import structlog

from consumer.processes.launch.sandbox import cannot_change_users, no_bubblewrap
from consumer.processes.service import MCPService

PAGE = "docs/operations/security.md, The host"

log = structlog.get_logger(__name__)


async def report_host(services: Iterable[MCPService]) -> None:
    """Log the sandboxes of ``services``, and warn of services with a weaker one than possible."""
    local = [service for service in services if service.enabled and service.command is not None]
    if not local:
        return
    apart = not cannot_change_users()
    if os.geteuid() == 0:
        own = [one.name for one in local if apart and one.sandbox.user == "own" and one.sandbox.kind != "none"]
        if own:
            log.info(
                "sandbox.own_users",
                services=own,
                text="the worker runs as root; each server runs as a user without privileges",
            )
        as_root = [service.name for service in local if service.name not in own]
        if as_root:
            reason = cannot_change_users() or "their sandbox settings say so"
            log.warning("sandbox.as_root", services=as_root, reason=reason, hint=f"they run as root; see {PAGE}")
    wanted = [service.name for service in local if service.sandbox.kind == "auto"]
    if wanted and (refusal := await no_bubblewrap()):
        text = (
            "servers run with limits, each as a separate user: they can use the network and read world-readable files"
            if apart
            else "servers run with limits, as the worker's user: each can read others' files and end their processes"
        )
        hint = f"install bubblewrap and allow user namespaces, or accept it with kind = limits; see {PAGE}"
        log.warning("sandbox.no_bubblewrap", services=wanted, reason=refusal, text=text, hint=hint)
