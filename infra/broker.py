"""Find a RabbitMQ, or start one, for as long as a command runs.

::

    python infra/broker.py run -- COMMAND...    run a command with AMQP_URL set; its exit code is ours
    python infra/broker.py url                  print the URL; a broker of our own is kept until a signal comes

``--port 5672`` before either gives a private node the usual port, where clients look that are told nothing.

In this order: ``AMQP_URL`` if it is set; a ``rabbitmq-server`` of this machine, started as a private node; one that
the package manager installs; Docker Compose; else a sentence about what to install, and exit code 1.
``RABBITMQ_SERVER=/path/to/sbin/rabbitmq-server`` chooses the version for the private node.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infra.loopback import BrokerFailed
from infra.rabbitmq_find import compose_broker, find_server, install_server, say, version_of
from infra.rabbitmq_node import PrivateBroker

__all__ = ["BrokerFailed", "PrivateBroker", "find_server", "open_broker", "private_broker"]

NOTHING_FOUND = (
    "no RabbitMQ found and none could be installed: install RabbitMQ 3.10 or newer (Debian: apt-get install "
    "rabbitmq-server, macOS: brew install rabbitmq) or Docker with Compose, or set AMQP_URL to a running broker"
)
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)


def private_broker(*, peer: PrivateBroker | None = None, config: str = "", arguments: str = "") -> PrivateBroker:
    """Return a private node of the RabbitMQ on this machine. It starts when it is entered.

    Raises:
        BrokerFailed: no RabbitMQ is installed and none could be.
    """
    server = find_server() or install_server()
    if server is None:
        raise BrokerFailed(NOTHING_FOUND)
    return PrivateBroker(server, peer=peer, config=config, arguments=arguments)


@contextlib.contextmanager
def open_broker(port: int | None = None) -> Iterator[str]:
    """Return the URL of a broker. Everything that was started for it is stopped on exit.

    Raises:
        BrokerFailed: no broker was found, or it did not start.
    """
    given = os.environ.get("AMQP_URL")
    server = None if given else find_server() or install_server()
    if given:
        yield given
    elif server:
        with PrivateBroker(server, port=port) as broker:
            version = ".".join(map(str, version_of(server) or ("of unknown version",)))
            say(f"RabbitMQ {version} as a private node on port {broker.port}")
            say(f"its rabbitmqctl is {broker.rabbitmqctl_script()}")
            yield broker.url
    else:
        with compose_broker() as url:
            if url is None:
                raise BrokerFailed(NOTHING_FOUND)
            yield url


def _at_the_terminal() -> bool:
    """Whether what is typed at the terminal reaches us, and so our command too, as a signal to the whole group."""
    with contextlib.suppress(OSError):
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    return False


def _on_signals(do: Callable[[int, FrameType | None], None]) -> None:
    for number in FORWARDED:
        signal.signal(number, do)


def run(command: list[str], port: int | None = None) -> int:
    """Run a command with ``AMQP_URL`` set, pass signals on to it, and return its exit code as a shell would."""
    child: subprocess.Popen[bytes] | None = None
    starting: list[
        int
    ] = []  # signals that came while the command was being started: it runs, and Popen has not returned

    def give_up(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def forward(number: int, _frame: FrameType | None) -> None:
        if child is None:
            starting.append(number)
        elif not (number in FROM_TERMINAL and _at_the_terminal()):
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    _on_signals(give_up)
    with open_broker(port) as url:
        _on_signals(forward)
        try:
            child = subprocess.Popen(command, env={**os.environ, "AMQP_URL": url})
        except OSError as error:
            say(f"cannot run {command[0]}: {error.strerror}")
            return 127
        for number in starting:
            forward(number, None)
        code = child.wait()
    return code if code >= 0 else 128 - code


def hold(port: int | None = None) -> int:
    """Print the URL of a broker; keep a broker of our own until a signal comes."""
    ended = threading.Event()
    _on_signals(lambda *_: ended.set())
    with open_broker(port) as url:
        print(url, flush=True)
        while not os.environ.get("AMQP_URL") and not ended.wait(0.5):
            pass
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="broker.py", description="Find a RabbitMQ, or start one.")
    parser.add_argument("--port", type=int, help="of a private node; else a free one")
    actions = parser.add_subparsers(dest="action", required=True)
    runner = actions.add_parser("run", help="run a command with AMQP_URL set")
    runner.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND...")
    actions.add_parser("url", help="print the URL, and keep a broker of our own until a signal comes")
    given = parser.parse_args(arguments)
    try:
        if given.action == "url":
            return hold(given.port)
        command = given.command[1:] if given.command[:1] == ["--"] else given.command
        if not command:
            parser.error("run needs a command")
        return run(command, given.port)
    except BrokerFailed as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
