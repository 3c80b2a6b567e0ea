"""TLS to a PBX: always verified, with your own CA if the settings name one."""

import ssl

from consumer.settings import AsteriskSettings


def context_of(settings: AsteriskSettings) -> ssl.SSLContext:
    """Return the TLS context that verifies the PBX's certificate."""
    return ssl.create_default_context(cafile=str(settings.tls_ca) if settings.tls_ca else None)
