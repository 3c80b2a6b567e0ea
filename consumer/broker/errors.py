"""What can go wrong between the worker and the broker.

::

    BrokerError
    ├── BrokerUnreachable   nobody answered at start for longer than allowed
    │   ├── BrokerRefused   somebody did, and lets us in neither now nor in a minute
    │   ├── BrokerForbids   somebody did, and our user lacks a permission
    │   └── BrokerUntrusted   TLS does not prove that it is the broker, or only one side speaks it
    ├── BrokerSilent        somebody accepts connections there, and says nothing
    ├── NameTaken           another process uses our name there
    ├── InvalidBrokerUrl    no connection can be made of the URL
    ├── BrokerUnavailable   the connection is lost, or not there yet
    │   ├── NotPermitted    there is one, and its user may not do this
    │   └── ReplyLost       there was one when the request was sent
    ├── PublishFailed       returned or refused: the message is certainly not in a queue
    │   └── Unroutable      there is no queue for it
    │       └── NoExchange    nor an exchange
    ├── PublishUnknown      no confirmation in time: the message may be in a queue or not
    └── Unsendable          it cannot be said in AMQP: nothing was sent, and trying again is no use
        └── MessageTooLarge   the broker would close the channel for it
"""


class BrokerError(Exception):
    """The broker or the connection to it has failed."""


class BrokerUnreachable(BrokerError):
    """Nobody answered at start for longer than allowed."""


class BrokerRefused(BrokerUnreachable):
    """The broker refuses the login, and will not accept it later: it knows no such user, password or vhost."""


class BrokerForbids(BrokerUnreachable):
    """The broker accepts the login, but the user lacks a permission that the message names."""


class BrokerUntrusted(BrokerUnreachable):
    """TLS does not prove the broker's identity. Nothing secret was sent, and trying again does not help.

    The certificate is not trusted, our certificate files cannot be read, or only one side speaks TLS.
    """


class BrokerSilent(BrokerError):
    """The connection was accepted, but no answer came: the broker is frozen, or this is no RabbitMQ."""


class NameTaken(BrokerError):
    """Another process uses our name on the broker. Trying again does not help."""


class InvalidBrokerUrl(BrokerError, ValueError):
    """The URL is invalid. The message says what to write, and does not repeat the URL."""


class BrokerUnavailable(BrokerError):
    """The connection is lost, or not open yet. Its supervisor reconnects."""


class NotPermitted(BrokerUnavailable):
    """The user of the connection may not do this. Nothing was done, but the broker closed the channel."""


class ReplyLost(BrokerUnavailable):
    """The connection was lost after a request was sent, and before its reply came."""


class PublishFailed(BrokerError):
    """The broker returned or refused the message: it is certainly not in a queue."""


class Unroutable(PublishFailed):
    """The exchange has no queue for the message, or there is no such exchange."""


class NoExchange(Unroutable):
    """There is no such exchange. The broker closed the channel."""


class PublishUnknown(BrokerError):
    """No confirmation came. The message may be in a queue, and is delivered if it is."""


class Unsendable(BrokerError):
    """AMQP or the AMQP library cannot encode the message. Nothing was sent, and trying again does not help."""


class MessageTooLarge(Unsendable):
    """The message is so large that the broker would close the channel."""
