"""Listens on a port for HTTP."""

import socket
from typing import Final

BACKLOG: Final = 2048


class CannotListen(Exception):
    """An address cannot be listened on; the message names the setting and says why."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. On ``::`` it also accepts IPv4, if the system can.

    Raises:
        OSError: the address is in use, or not of this machine.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    dual = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=dual)
