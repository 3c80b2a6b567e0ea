"""Where the broker is: a URL that is never printed with its password."""

from collections.abc import Mapping

from pydantic import SecretStr

from consumer.broker.url import without_password

VARIABLES = ("AMQP_URL", "CLOUDAMQP_URL", "RABBITMQ_URL")
"""Where it is looked for, in this order; a variable that is empty counts as not set."""

DEFAULT = "amqp://guest:guest@localhost:5672/"


class BrokerUrl(SecretStr):
    """An AMQP URL; ``str`` and ``repr`` mask its password, ``get_secret_value()`` is the URL to connect with."""

    def _display(self) -> str:
        return without_password(self.get_secret_value())


def variable_of(env: Mapping[str, str]) -> str | None:
    """The variable that says where the broker is; None when none does and the default counts."""
    return next((name for name in VARIABLES if env.get(name)), None)
