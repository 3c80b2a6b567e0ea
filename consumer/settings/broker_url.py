"""The broker's address: a URL that is never printed with its password."""

from collections.abc import Mapping

from pydantic import SecretStr

from consumer.broker.url import without_password

VARIABLES = ("AMQP_URL", "CLOUDAMQP_URL", "RABBITMQ_URL")
"""The variables that are searched for it, in this order. An empty variable counts as not set."""

DEFAULT = "amqp://guest:guest@localhost:5672/"


class BrokerUrl(SecretStr):
    """An AMQP URL; ``str`` and ``repr`` mask its password, ``get_secret_value()`` is the URL to connect with."""

    def _display(self) -> str:
        return without_password(self.get_secret_value())


def variable_of(env: Mapping[str, str]) -> str | None:
    """Return the variable that contains the broker's URL; None if none does and the default applies."""
    return next((name for name in VARIABLES if env.get(name)), None)
