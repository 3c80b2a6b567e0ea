"""One RabbitMQ node of our own on loopback: nothing of it is shared with the system, nothing of it stays behind.

A node has its own ports, node name, Erlang cookie, epmd, data and log folder, loads no plugin and reads no file of
``/etc/rabbitmq``. Works as root and as a normal user. Needs the standard library only.

The ports lie below the range that the kernel gives to outgoing connections. In that range a client that retries a
stopped broker may be handed the broker's own port as its source and connect to itself.
"""

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = "127.0.0.1"
KEEP_OUT = "{127,0,0,1}"

# Ends and removes everything when this process is gone, however it went: its end of the pipe closes then. Each line
# it reads replaces the process groups to end; an empty line says that there is nothing left to do.
GUARD = """
while read -r groups; do [ -n "$groups" ] || exit 0; ours=$groups; done
for group in $ours; do kill -s KILL -- "-$group"; done 2>/dev/null
rm -rf -- "$1"
"""


class BrokerFailed(RuntimeError):
    """A node did not start, or rabbitmqctl failed; the message ends with what it said last."""


def free_port() -> int:
    """A TCP port of loopback that nobody listens on and no outgoing connection is given."""
    for port in random.SystemRandom().sample(range(12_000, 32_000), k=100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return port
    raise BrokerFailed("no free TCP port between 12000 and 32000")


def speaks_amqp(port: int) -> bool:
    """Whether a broker answers the protocol header on this port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=2) as peer:
        peer.sendall(b"AMQP\x00\x00\x09\x01")
        return peer.recv(1) == b"\x01"  # a method frame: connection.start
    return False


def _end_group(process: subprocess.Popen[bytes], timeout: float = 10.0) -> None:
    """SIGKILL a process with its group, and return when none of the group is left."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            break
        except PermissionError:  # macOS says so of a group that holds only zombies
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)
        time.sleep(0.01)
    process.wait(timeout=1)


def _epmd_program() -> str:
    found = shutil.which("epmd")
    if found:
        return found
    asked = ["erl", "-noinput", "-eval", 'io:format("~ts",[code:root_dir()]),halt().']
    root = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout
    for program in (Path(root, "bin", "epmd"), *Path(root).glob("erts-*/bin/epmd")):
        if program.exists():
            return str(program)
    raise BrokerFailed(f"Erlang at {root} has no epmd")


class PrivateBroker:
    """A private node; as a context manager it is started on entry and gone, with its data, on exit.

    ``peer`` is a running node to form a cluster with later: both then use its epmd and cookie, and ``peer`` must
    outlive this one. ``config`` is added to ``rabbitmq.conf``. Not safe for use by several threads.
    """

    def __init__(
        self,
        server: Path,
        *,
        peer: "PrivateBroker | None" = None,
        config: str = "",
        start_timeout: float = 60.0,
    ) -> None:
        self.server = server
        self.start_timeout = start_timeout
        self._peer = peer
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
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
        self.port = free_port()
        self._dist_port = free_port()

    @property
    def url(self) -> str:
        """Where clients connect; stays the same over ``kill`` and ``restart``."""
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
        """Start the node on the data it has, and return when it answers. Nothing happens when it runs.

        Raises:
            BrokerFailed: it ended, or did not answer within ``start_timeout`` seconds.
        """
        if self.pid is None:
            self._spawn()
            self._await_ready()

    def stop(self) -> None:
        """End the node in good order and keep its data."""
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
            _end_group(self._process)
            self._process = None
            self._tell_guard()

    def restart(self) -> None:
        """Stop the node in good order and start it again: same ports, same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the node, its epmd and its data at once. Harmless when repeated."""
        self.kill()
        if self._epmd:
            _end_group(self._epmd)
            self._epmd = None
        if self._guard:
            with contextlib.suppress(BrokenPipeError):
                self._guard.communicate(b"\n", timeout=5)
            self._guard = None
        shutil.rmtree(self.home, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.home.parent.rmdir()  # the last node takes the folder with it

    def stop_app(self) -> None:
        """Stop RabbitMQ inside the running Erlang node: clients are cut off."""
        self.rabbitmqctl("stop_app")

    def start_app(self) -> None:
        """Start RabbitMQ again after ``stop_app``, and return when it answers."""
        self.rabbitmqctl("start_app")
        self._await_ready()

    def join_cluster(self, other: "PrivateBroker") -> None:
        """Make this node, which must have been made with a ``peer`` of that cluster, a member; it loses its data."""
        self.stop_app()
        self.rabbitmqctl("reset")
        self.rabbitmqctl("join_cluster", other.node)
        self.start_app()

    def rabbitmqctl(self, *arguments: str, timeout: float = 60.0) -> str:
        """What ``rabbitmqctl`` prints when it is asked about this node.

        Raises:
            BrokerFailed: it failed or took longer than ``timeout`` seconds.
        """
        command = [str(self.server.with_name("rabbitmqctl")), "-n", self.node, *arguments]
        try:
            done = subprocess.run(
                command, env=self._environment(), capture_output=True, text=True, timeout=timeout, check=True
            )
        except subprocess.CalledProcessError as error:
            raise BrokerFailed(
                f"rabbitmqctl {' '.join(arguments)}: {(error.stderr or error.stdout).strip()}"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise BrokerFailed(f"rabbitmqctl {' '.join(arguments)} took longer than {timeout:g} s") from error
        return done.stdout

    def sync(self) -> None:
        """Have the names of the quorum queues written, which the node otherwise does within three seconds."""
        self.rabbitmqctl("eval", "lists:foreach(fun dets:sync/1, dets:all()).")

    def log_tail(self, lines: int = 25) -> str:
        """The last lines of what the node logged."""
        told = [
            path.read_text(errors="replace")
            for path in (self.home / "node.log", self.home / "console.log")
            if path.exists()
        ]
        return "\n".join("\n".join(told).splitlines()[-lines:])

    def _open(self) -> None:
        self._write_files()
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self.home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        if self._peer is None:
            self._epmd = subprocess.Popen(
                [_epmd_program(), "-port", str(self.epmd_port), "-address", LOOPBACK],
                env=self._environment(),
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
                if attempt == attempts or "eaddrinuse" not in self.log_tail(200):
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
        (self.home / "advanced.config").write_text("[].\n")
        (self.home / "enabled_plugins").write_text("[].\n")
        (self.home / "env.conf").touch()

    def _spawn(self) -> None:
        with (self.home / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                [str(self.server)],
                env=self._environment(),
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
        groups = [str(process.pid) for process in (self._epmd, self._process) if process]
        if self._guard and self._guard.stdin and groups:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.write(" ".join(groups).encode() + b"\n")
                self._guard.stdin.flush()

    def _environment(self) -> dict[str, str]:
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
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {KEEP_OUT}",
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
