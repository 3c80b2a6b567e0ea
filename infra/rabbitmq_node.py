"""A private RabbitMQ node on loopback. It shares nothing with the system, and leaves nothing behind.

A node has its own ports, node name, Erlang cookie, epmd, data and log folder, loads no plugin and reads no file of
``/etc/rabbitmq``. Works as root and as a normal user. Needs the standard library only.
"""

import contextlib
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.loopback import LOOPBACK, BrokerFailed, Guard, end_group, epmd_program, free_port, speaks_amqp

ROOT = Path(__file__).resolve().parents[1]
ADVANCED = ROOT / "infra" / "rabbitmq" / "advanced.config"
"""The advanced configuration that docs/operations/upgrades.md recommends for every RabbitMQ."""
KEEP_OUT = "{127,0,0,1}"
TAKEN = ("eaddrinuse", "dist_port_already_used")
"""The log message of a node whose port another process took between its choice and its use."""


class PrivateBroker:
    """A private node; as a context manager it is started on entry and gone, with its data, on exit.

    ``peer`` is a running node to form a cluster with later: both then use its epmd and cookie, and ``peer`` must
    outlive this one. ``config`` is added to ``rabbitmq.conf``, ``arguments`` to the command line of Erlang. Not safe
    for use by several threads.
    """

    def __init__(
        self,
        server: Path,
        *,
        peer: "PrivateBroker | None" = None,
        config: str = "",
        arguments: str = "",
        port: int | None = None,
        start_timeout: float = 120.0,
    ) -> None:
        self.server = server
        self._fixed_port = port
        self.start_timeout = start_timeout
        self._peer = peer
        self._config = config
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self.cookie: str = peer.cookie if peer else secrets.token_hex(16)
        self.epmd_port: int = peer.epmd_port if peer else free_port()
        self._pick_ports()
        name = f"mcp-{os.getpid()}-{secrets.token_hex(3)}"
        self.node = f"{name}@{LOOPBACK}"  # an address: nothing has to be looked up
        self.home = self._make_home(name)

    @staticmethod
    def _make_home(name: str) -> Path:
        home = ROOT / ".rabbitmq" / name
        try:
            home.mkdir(parents=True, mode=0o700)
        except OSError:
            home = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        return home

    def _pick_ports(self) -> None:
        self.port = self._fixed_port or free_port()
        self._dist_port = free_port()

    @property
    def url(self) -> str:
        """The URL for clients. It stays the same over ``kill`` and ``restart``."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/"

    @property
    def pid(self) -> int | None:
        """The node's process while it runs; it leads a process group of its own."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the node on its present data, and return when it answers. Does nothing if it runs.

        Raises:
            BrokerFailed: it ended, or did not answer within ``start_timeout`` seconds.
        """
        if self.pid is None:
            self._refuse_taken_port()
            self._spawn()
            self._await_ready()

    def _refuse_taken_port(self) -> None:
        """Check that the port is free. Otherwise clients would reach another program."""
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.port), timeout=1):
            raise BrokerFailed(
                f"port {self.port} is taken: something listens there already. If it is the RabbitMQ that you want, set "
                f"AMQP_URL; otherwise choose another port, or none"
            )

    def stop(self) -> None:
        """Shut the node down, and keep its data."""
        if self._process and self.pid is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=20)
        self.kill()

    def kill(self) -> None:
        """SIGKILL the node and keep its data.

        Call ``sync`` before when quorum queues were declared in the last seconds: up to 3.10 at least, a name that Ra
        has not yet written is lost with the node, and its queue never finds a leader again.
        """
        if self._process:
            end_group(self._process)
            self._process = None
            self._tell_guard()

    def restart(self) -> None:
        """Shut the node down and start it again, with the same ports and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the node, its epmd and its data at once. Harmless when repeated."""
        self.kill()
        if self._epmd:
            end_group(self._epmd)
            self._epmd = None
        if self._guard:
            self._guard.dismiss()
            self._guard = None
        shutil.rmtree(self.home, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.home.parent.rmdir()  # the last node takes the folder with it

    def stop_app(self) -> None:
        """Stop RabbitMQ inside the running Erlang node. Clients are disconnected."""
        self.rabbitmqctl("stop_app")

    def start_app(self) -> None:
        """Start RabbitMQ again after ``stop_app``, and return when it answers."""
        self.rabbitmqctl("start_app")
        self._await_ready()

    def join_cluster(self, other: "PrivateBroker") -> None:
        """Make this node, made with a ``peer`` of that cluster, a member of it. It loses its data."""
        self.stop_app()
        self.rabbitmqctl("reset")
        self.rabbitmqctl("join_cluster", other.node)
        self.start_app()

    def rabbitmqctl(self, *arguments: str, timeout: float = 60.0) -> str:
        """Return the output of ``rabbitmqctl`` for this node.

        Raises:
            BrokerFailed: it failed or took longer than ``timeout`` seconds.
        """
        command = [str(self.server.with_name("rabbitmqctl")), "-n", self.node, *arguments]
        try:
            done = subprocess.run(
                command, env=self.environment(), capture_output=True, text=True, timeout=timeout, check=True
            )
        except subprocess.CalledProcessError as error:
            raise BrokerFailed(
                f"rabbitmqctl {' '.join(arguments)}: {(error.stderr or error.stdout).strip()}"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise BrokerFailed(f"rabbitmqctl {' '.join(arguments)} took longer than {timeout:g} s") from error
        return done.stdout

    def rabbitmqctl_script(self) -> Path:
        """Write a script into the node's folder that is ``rabbitmqctl`` for this node, from any shell."""
        script = self.home / "rabbitmqctl"
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.environment().items()]
        program = shlex.quote(str(self.server.with_name("rabbitmqctl")))
        script.write_text("\n".join(["#!/bin/sh", *lines, f'exec {program} -n {self.node} "$@"', ""]))
        script.chmod(0o700)
        return script

    def sync(self) -> None:
        """Write the names of the quorum queues to disk, which the node otherwise does within three seconds."""
        self.rabbitmqctl("eval", "lists:foreach(fun dets:sync/1, dets:all()).")

    def log_tail(self, lines: int = 25) -> str:
        """Return the last lines of the node's log."""
        told = [
            path.read_text(errors="replace")
            for path in (self.home / "node.log", self.home / "console.log")
            if path.exists()
        ]
        return "\n".join("\n".join(told).splitlines()[-lines:])

    def _open(self) -> None:
        self._write_files()
        self._guard = Guard(self.home)
        if self._peer is None:
            self._epmd = subprocess.Popen(
                [epmd_program(self.server), "-port", str(self.epmd_port), "-address", LOOPBACK],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=self.home,
                start_new_session=True,
            )
            self._tell_guard()
        attempts = 3
        for attempt in range(1, attempts + 1):
            try:
                self.start()
            except BrokerFailed:
                if attempt == attempts or not any(words in self.log_tail(200) for words in TAKEN):
                    raise
                self.kill()
                self._pick_ports()
            else:
                return

    def _write_files(self) -> None:
        cookie = self.home / ".erlang.cookie"
        cookie.write_text(self.cookie)
        cookie.chmod(0o400)
        (self.home / "rabbitmq.conf").write_text(f"log.file.level = info\n{self._config}\n")
        (self.home / "advanced.config").write_bytes(ADVANCED.read_bytes())
        (self.home / "enabled_plugins").write_text("[].\n")
        (self.home / "env.conf").touch()

    def _spawn(self) -> None:
        with (self.home / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                [str(self.server)],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                start_new_session=True,
            )
        self._tell_guard()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        while time.monotonic() < deadline:
            if self.pid is None:
                raise BrokerFailed(f"the RabbitMQ node {self.node} ended while it was starting:\n{self.log_tail()}")
            if speaks_amqp(self.port):
                return
            time.sleep(0.05)
        raise BrokerFailed(f"RabbitMQ did not answer within {self.start_timeout:g} s:\n{self.log_tail()}")

    def _tell_guard(self) -> None:
        if self._guard:
            self._guard.watch([process.pid for process in (self._epmd, self._process) if process])

    def environment(self) -> dict[str, str]:
        """Return the environment in which the server's programs talk to this node."""
        inherited = ("PATH", "LANG", "LC_ALL", "TMPDIR", "ERLANG_HOME")
        kept = {name: os.environ[name] for name in inherited if name in os.environ}
        home = str(self.home)
        return {
            "LC_ALL": "C.UTF-8",
            **kept,
            "HOME": home,
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(self._dist_port + 1),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(self._dist_port + 100),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {KEEP_OUT} {self._arguments}",
            "RABBITMQ_CTL_ERL_ARGS": f"-kernel inet_dist_use_interface {KEEP_OUT}",
            "RABBITMQ_CONF_ENV_FILE": f"{home}/env.conf",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_CONFIG_FILES": f"{home}/conf.d/*.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{home}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{home}/data",
            "RABBITMQ_LOG_BASE": home,
            "RABBITMQ_LOGS": f"{home}/node.log",
            "RABBITMQ_PID_FILE": f"{home}/node.pid",
            # The start script then becomes the node instead of waiting for it: our signals reach the node itself.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
