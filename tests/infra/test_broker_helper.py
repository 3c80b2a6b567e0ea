"""The broker helper: a RabbitMQ of our own that is there quickly and leaves nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import psutil
import pytest

from infra.broker import PrivateBroker, find_server, open_broker, private_broker
from infra.loopback import epmd_program, free_port
from infra.rabbitmq_find import version_of

HELPER = Path(__file__).resolve().parents[2] / "infra" / "broker.py"
OF_DEBIAN = HELPER.with_name("rabbitmq_of_debian")
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(find_server() is None, reason="no rabbitmq-server here: the broker comes from elsewhere"),
]


@pytest.fixture
def broker(own_broker: PrivateBroker) -> PrivateBroker:
    return own_broker


def connects(url: str) -> bool:
    try:
        pika.BlockingConnection(pika.URLParameters(url)).close()
    except pika.exceptions.AMQPError:
        return False
    return True


def eventually(condition: Callable[[], bool], within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def processes_of(mark: str) -> list[psutil.Process]:
    """Living processes that were started for the node whose folder is named ``mark``."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE
        and any(mark in word for word in process.info["cmdline"] or [])
    ]


def keep_a_message(url: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("kept", durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", "kept", b"still here", pika.BasicProperties(delivery_mode=2))
    connection.close()


def fetch_the_message(url: str) -> bytes | None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    body: bytes | None
    _, _, body = connection.channel().basic_get("kept", auto_ack=True)
    connection.close()
    return body


def test_a_private_node_is_on_loopback_only_and_answers(broker: PrivateBroker) -> None:
    assert connects(broker.url)
    listening = {
        entry.laddr.ip
        for entry in psutil.Process(broker.pid).net_connections("tcp")
        if entry.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_it_loads_no_plugin_and_reads_nothing_of_the_system(broker: PrivateBroker) -> None:
    assert "guest" in broker.rabbitmqctl("list_users", "--silent", "--no-table-headers").split()
    log = (broker.home / "console.log").read_text()
    assert "completed with 0 plugins" in log
    assert "/etc/rabbitmq" not in log


def test_stop_app_cuts_clients_off_and_start_app_lets_them_in_again(broker: PrivateBroker) -> None:
    broker.stop_app()
    assert not connects(broker.url)
    broker.start_app()
    assert connects(broker.url)


@pytest.mark.timeout(60)
def test_what_was_confirmed_outlives_a_kill(broker: PrivateBroker) -> None:
    keep_a_message(broker.url)
    broker.sync()
    broker.kill()
    assert broker.pid is None
    assert not connects(broker.url)
    broker.start()
    assert fetch_the_message(broker.url) == b"still here"


def test_a_node_with_a_peer_joins_its_cluster(broker: PrivateBroker) -> None:
    with private_broker(peer=broker) as second:
        second.join_cluster(broker)
        members = broker.rabbitmqctl("cluster_status")
        assert broker.node in members
        assert second.node in members
        broker.rabbitmqctl("await_online_nodes", "2")
        second.kill()
        broker.rabbitmqctl("forget_cluster_node", second.node)


def test_nothing_is_left_when_the_helper_itself_is_killed() -> None:
    helper = subprocess.Popen(
        [sys.executable, str(HELPER), "url"],
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "AMQP_URL"},
    )
    try:
        assert helper.stdout
        url = helper.stdout.readline().strip()
        assert connects(url)
        mark = f"mcp-{helper.pid}-"
        assert processes_of(mark)
    finally:
        helper.kill()
        helper.communicate()
    assert eventually(lambda: not connects(url))
    assert eventually(lambda: not processes_of(mark))
    assert eventually(lambda: not list(HELPER.parents[1].glob(f".rabbitmq/{mark}*")))


def test_a_private_node_takes_the_port_that_it_is_given_names_its_rabbitmqctl_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AMQP_URL", raising=False)
    port, mark = free_port(), f"mcp-{os.getpid()}-"
    before = {process.pid for process in processes_of(mark)}  # of other nodes of this test run

    def its_own() -> list[psutil.Process]:
        return [process for process in processes_of(mark) if process.pid not in before]

    homes = set(HELPER.parents[1].glob(f".rabbitmq/{mark}*"))
    with open_broker(port) as url:
        assert url == f"amqp://guest:guest@127.0.0.1:{port}/"
        assert connects(url)
        assert its_own()
        assert set(HELPER.parents[1].glob(f".rabbitmq/{mark}*")) > homes
        script = capfd.readouterr().err.partition("its rabbitmqctl is ")[2].strip()
        bare = {"PATH": os.environ["PATH"]}
        ran = subprocess.run([script, "list_vhosts", "--silent"], env=bare, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout.split()[-1:]) == (0, ["/"]), ran.stderr
    assert not Path(script).exists()
    assert set(HELPER.parents[1].glob(f".rabbitmq/{mark}*")) == homes
    assert not connects(url)
    assert eventually(lambda: not its_own())


def test_a_url_that_is_given_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", "amqp://elsewhere/")
    with open_broker() as url:
        assert url == "amqp://elsewhere/"


DRAINS = "trap 'echo drained; exit 3' TERM; {then}; while :; do sleep 0.05; done"


@contextlib.contextmanager
def run_helper(*command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(HELPER), "run", "--", *command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "AMQP_URL": "amqp://given/"},
        start_new_session=True,
    ) as helper:
        try:
            yield helper
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(helper.pid, signal.SIGKILL)  # the command too, which may outlive a helper that is wrong


def outcome(helper: subprocess.Popen[str]) -> tuple[str, int]:
    return helper.communicate(timeout=30)[0], helper.returncode


def test_a_port_that_is_taken_is_refused_and_nothing_is_run(broker: PrivateBroker) -> None:
    """What it would start could not listen there, and the command would speak to somebody else's broker."""
    env = {name: value for name, value in os.environ.items() if name != "AMQP_URL"}
    command = [sys.executable, str(HELPER), "--port", str(broker.port), "run", "--", "echo", "ran"]
    ran = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"port {broker.port} is taken" in ran.stderr
    assert "private node" not in ran.stderr
    assert broker.pid is not None


def test_the_command_gets_the_url_and_gives_the_exit_code() -> None:
    with run_helper("sh", "-c", "echo $AMQP_URL; exit 7") as helper:
        assert outcome(helper) == ("amqp://given/\n", 7)


def test_a_command_that_dies_of_a_signal_gives_the_shells_exit_code() -> None:
    with run_helper("sh", "-c", "kill -KILL $$") as helper:
        assert outcome(helper) == ("", 128 + signal.SIGKILL)


def test_signals_reach_the_command() -> None:
    with run_helper("sh", "-c", DRAINS.format(then="echo up")) as helper:
        assert helper.stdout
        assert helper.stdout.readline() == "up\n"
        helper.send_signal(signal.SIGTERM)
        assert outcome(helper) == ("drained\n", 3)


def test_a_signal_that_comes_while_the_command_starts_reaches_it() -> None:
    """The command runs before the helper knows its process; it signals the helper as the first thing it does."""
    with run_helper("sh", "-c", DRAINS.format(then="kill -TERM $PPID")) as helper:
        assert outcome(helper) == ("drained\n", 3)


def test_a_command_that_does_not_exist_is_127() -> None:
    with run_helper("no-such-command-anywhere") as helper:
        assert outcome(helper) == ("", 127)


def test_a_rabbitmq_that_is_too_old_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "sbin" / "rabbitmq-server"
    server.parent.mkdir()
    server.touch(mode=0o755)
    (tmp_path / "plugins" / "rabbit-3.9.13").mkdir(parents=True)
    monkeypatch.setenv("RABBITMQ_SERVER", str(server))
    assert version_of(server) == (3, 9, 13)
    assert find_server() is None


def test_a_server_brings_its_own_port_mapper(tmp_path: Path) -> None:
    own = tmp_path / "epmd"
    own.touch(mode=0o755)
    assert epmd_program(tmp_path / "rabbitmq-server") == str(own)


@pytest.fixture
def another_debian(tmp_path: Path) -> Path:
    """The server that the script makes of a Debian in a folder; the Debian is this one, which costs no download."""
    if not Path("/usr/lib/rabbitmq/bin").exists() or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("needs Debian's rabbitmq-server and the right to mount")
    (tmp_path / "debian").symlink_to("/")
    made = subprocess.run([str(OF_DEBIAN), "sid", str(tmp_path)], capture_output=True, text=True, check=True)
    return Path(made.stdout.strip().removeprefix("RABBITMQ_SERVER="))


def test_a_rabbitmq_in_a_folder_runs_as_one_of_the_system(
    another_debian: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITMQ_SERVER", str(another_debian))
    assert find_server() == another_debian
    with private_broker() as node:
        told = ".".join(map(str, version_of(another_debian) or ()))
        assert f"RabbitMQ {told}" in (node.home / "console.log").read_text()
        assert node.node in node.rabbitmqctl("cluster_status")
        assert psutil.Process(node.pid).name() == "beam.smp"  # our signals reach the node itself
        assert str(another_debian.parents[1]) not in Path("/proc/self/mounts").read_text()
    assert eventually(lambda: not processes_of(node.home.name))
