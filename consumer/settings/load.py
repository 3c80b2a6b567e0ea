"""Loads the settings from a file and the environment, or reports everything that is wrong with them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from consumer.broker.url import is_unverified, problem_of, unknown_parameters
from consumer.calls.routes import Route, odd_fields
from consumer.processes.advice import fetcher_of
from consumer.processes.service import EITHER, missing_file
from consumer.settings.asterisk_settings import open_password
from consumer.settings.broker_url import DEFAULT, variable_of
from consumer.settings.environment import apply_environment
from consumer.settings.faults import ConfigurationError, Fault, KeyPath, faults_behind, faults_of, key_of
from consumer.settings.files import DEFAULT_FILE, Table, find_file, read_file, understood
from consumer.settings.gateway_settings import second_thoughts
from consumer.settings.models import Settings, built_in_services
from schemas.text import nearest


def load_settings(path: Path | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """Load the settings.

    Args:
        path: the configuration file; None takes ``MCP_SESSIONS_CONFIG``, else ``mcp-sessions.toml`` in the working
            directory if it is there, else a built-in ``todo`` service, with a warning.
        env: the environment; None takes that of the process.

    Raises:
        ConfigurationError: something is wrong. The error lists all faults.
    """
    env = os.environ if env is None else env
    faults: list[Fault] = []
    file = find_file(path, env)
    read, warnings, written = _read(file, env, faults)
    table = read or {}
    written |= apply_environment(table, env, faults.append)
    of_services: list[str] = []
    if file is None and not table.get("services"):
        table["services"] = built_in_services()
        of_services.append(f"no configuration: there is no {DEFAULT_FILE} here, so calls get the built-in service todo")
    faults += _routes_without_service(table)
    faults += _services_of_two_kinds(table, written)
    url_variable = variable_of(env)
    table["amqp_url"] = env[url_variable].strip() if url_variable else DEFAULT
    problem = problem_of(table["amqp_url"])
    if url_variable and problem:
        faults.append(Fault(url_variable, problem))
    settings = None
    try:
        settings = Settings(**table, warnings=tuple(warnings), service_warnings=tuple(of_services), path=file)
        if read is not None and problem is None:
            settings = _with_second_thoughts(settings)
    except ValidationError as error:
        told = {fault.key for fault in faults}
        found = [*faults_of(error, Settings, written), *faults_behind(error, table, Settings, written)]
        faults += [fault for fault in found if fault.key not in told]
    if faults or settings is None:
        if settings is None:
            raise ConfigurationError(faults, [*warnings, *of_services, *_odd_routes(table)])
        raise ConfigurationError(faults, [*settings.warnings, *settings.service_warnings])
    return settings


def _read(
    file: Path | None, env: Mapping[str, str], faults: list[Fault]
) -> tuple[Table | None, list[str], dict[KeyPath, str]]:
    """The file's table, its warnings and names as ``understood`` returns them; no table if it cannot be read."""
    if file is None:
        return {}, [], {}
    try:
        return understood(read_file(file, env), env, faults.append, file)
    except ConfigurationError as error:  # the environment may have faults too
        faults += error.faults
        return None, [], {}


def _routes_without_service(table: Table) -> Iterator[Fault]:
    """Find routes with unknown services in the unparsed table, so that faults elsewhere do not hide them."""
    services: Any = table.get("services", {})
    routes: Any = table.get("routes", [])
    if not isinstance(services, dict) or not isinstance(routes, list):
        return
    for number, route in enumerate(routes):
        named = route.get("services") if isinstance(route, dict) else None
        for name in named if isinstance(named, list) else []:
            if isinstance(name, str) and name not in services:
                hint = nearest(name, map(str, services))
                yield Fault(f"routes[{number}].services", f"there is no service {name!r}; {hint}")


def _odd_routes(table: Table) -> Iterator[str]:
    """Warn of misspelt fields of valid routes in the unparsed table, so that faults elsewhere do not hide them."""
    routes: Any = table.get("routes", [])
    for number, given in enumerate(routes if isinstance(routes, list) else []):
        with suppress(ValidationError):
            yield from _odd(number, Route.model_validate(given))


def _odd(number: int, route: Route) -> Iterator[str]:
    return (f"routes[{number}].match.{odd}" for odd in odd_fields(route))


def _services_of_two_kinds(table: Table, written: Mapping[KeyPath, str]) -> Iterator[Fault]:
    """Find services with a command and a URL in the unparsed table, because either may have its own fault."""
    services: Any = table.get("services", {})
    for name, service in services.items() if isinstance(services, dict) else ():
        if isinstance(service, dict) and None not in (service.get("command"), service.get("url")):
            yield Fault(key_of(("services", str(name)), written), EITHER)


def _starts_that_nobody_awaits(settings: Settings) -> Iterator[str]:
    """Warn of services that may take longer to start than a tool call of the gateway waits.

    The default is longer, too: of services that leave it, only those count that fetch their package at each start.
    """
    waits = settings.gateway.call_timeout
    for name, service in settings.services.items():
        fetcher = fetcher_of(service)
        meant = fetcher is not None or "start_timeout" in service.model_fields_set
        if service.enabled and meant and service.start_timeout >= waits:
            yield (
                f"services.{name}.start_timeout: {service.start_timeout:g} s, but a tool call over HTTP waits for "
                f"{waits:g} s (gateway.call_timeout), so a slow start fails it; "
                + (f"{fetcher} downloads at each start: install the package once" if fetcher else "make it shorter")
            )


def _with_second_thoughts(settings: Settings) -> Settings:
    """Add warnings about settings that are valid but probably a mistake."""
    thoughts, of_services = list(settings.warnings), list(settings.service_warnings)
    url = settings.amqp_url.get_secret_value()
    thoughts += unknown_parameters(url)
    if is_unverified(url):
        thoughts.append("no_verify_ssl: anybody between the worker and the broker can read and change all messages")
    thoughts += second_thoughts(settings.gateway)
    if settings.worker.http_port and settings.worker.http_port == settings.gateway.port:
        thoughts.append("worker.http_port is the gateway's port, too: 'worker --gateway' cannot listen on both")
    thoughts += open_password(settings.asterisk)
    enabled = {name for name, service in settings.services.items() if service.enabled}
    if not enabled:
        of_services.append("no service is enabled, so calls get no session")
    of_services += [missing for service in settings.services.values() if (missing := missing_file(service))]
    of_services += [
        f"services.{name}.sandbox: the server gets a minimal environment even without restricted_env; set the "
        "variables that it needs in env"
        for name, service in settings.services.items()
        if service.enabled and not service.sandbox.restricted_env and not service.env
    ]
    if "gateway" in settings.model_fields_set:
        of_services += _starts_that_nobody_awaits(settings)
    for number, route in enumerate(settings.routes):
        of_services += _odd(number, route)
        off = [name for name in route.services if name not in enabled]
        if off:
            of_services.append(f"routes[{number}].services: {', '.join(off)} is disabled and left out")
        if not route.match and number < len(settings.routes) - 1:
            of_services.append(f"routes[{number}] matches every call: the routes after it are never reached")
    return settings.model_copy(update={"warnings": tuple(thoughts), "service_warnings": tuple(of_services)})
