"""The settings in the form that ``config check`` prints."""

from typing import Any

from consumer.observability import MASK, is_secret_key, mask_command, mask_text
from consumer.processes.service import MCPService
from consumer.settings.models import Settings


def describe(settings: Settings) -> dict[str, Any]:
    """Return the configuration as JSON, without secrets. Of a service's environment it has only the names."""
    return {
        "path": str(settings.path) if settings.path else None,
        "broker": str(settings.amqp_url),
        "session": settings.session.model_dump(mode="json"),
        "services": {name: _service(service) for name, service in settings.services.items()},
        "routes": [_without_secrets(route.model_dump(mode="json")) for route in settings.routes],
        "worker": _without_secrets(settings.worker.model_dump(mode="json")),
        "gateway": {
            **_without_secrets(settings.gateway.model_dump(mode="json")),
            "listens_on": settings.gateway.listens_on,
            "credentials": list(settings.gateway.credentials),
        },
        "asterisk": _without_secrets(settings.asterisk.model_dump(mode="json")),
        "warnings": [*settings.warnings, *settings.service_warnings],
    }


def _service(service: MCPService) -> dict[str, Any]:
    told: dict[str, Any] = _without_secrets(service.model_dump(mode="json", exclude={"name"}))
    told["env"] = dict.fromkeys(service.env, MASK)
    told["headers"] = dict.fromkeys(service.headers, MASK)
    if service.command:
        told["command"] = mask_command(service.command)
    return told


def _without_secrets(value: Any) -> Any:
    match value:
        case dict():
            return {key: MASK if item and is_secret_key(key) else _without_secrets(item) for key, item in value.items()}
        case list():
            return [_without_secrets(item) for item in value]
        case str():
            return mask_text(value)
    return value
