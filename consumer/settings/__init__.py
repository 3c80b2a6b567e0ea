"""Configuration: a file, overridden by the environment. All faults are reported at once. Starts nothing."""

from consumer.settings.asterisk_settings import AsteriskSettings
from consumer.settings.broker_url import BrokerUrl
from consumer.settings.describe import describe
from consumer.settings.faults import ConfigurationError, Fault
from consumer.settings.load import load_settings
from consumer.settings.models import CallExchangeSettings, SessionSettings, Settings, WorkerSettings

__all__ = [
    "AsteriskSettings",
    "BrokerUrl",
    "CallExchangeSettings",
    "ConfigurationError",
    "Fault",
    "SessionSettings",
    "Settings",
    "WorkerSettings",
    "describe",
    "load_settings",
]
