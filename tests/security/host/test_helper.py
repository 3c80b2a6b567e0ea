"""A fork server's helper that was taken over by one of its sessions cannot have the worker signal others for it."""

import asyncio
import os
import subprocess
import sys
from functools import partial

import pytest

from consumer.processes.launch.fork_server import CannotFork, ForkServer, Job, Process, Watch
from consumer.processes.stdio.spawn import fork, watch

from .whom import NOBODY

LIAR = """
import json, socket, sys
worker = socket.socket(fileno=0)
worker.send(json.dumps({"ready": 1}).encode())
asked = json.loads(socket.recv_fds(worker, 65536, 3)[0])
for answer in sys.argv[1:]:
    worker.send(answer.replace("NUMBER", str(asked["id"])).encode())
worker.recv(1)
"""


@pytest.mark.parametrize("answer", ['{"id": NUMBER, "pid": PID}', '{"id": 77, "pid": PID}', '{"id": ', "[]]", "7"])
async def test_a_fork_that_is_not_its_own_is_refused(answer: str) -> None:
    bystander = await asyncio.create_subprocess_exec("sleep", "1000")

    async def spawn(stdin: int, stderr: int) -> tuple[Process, Watch]:
        argv = [sys.executable, "-I", "-S", "-c", LIAR, answer.replace("PID", str(bystander.pid)), '{"id": 78']
        child = fork(argv, stdin=stdin, stdout=subprocess.DEVNULL, stderr=stderr, environment={})
        return child, partial(watch, child)

    helper = ForkServer(lambda _helper: None, user=NOBODY)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        await helper.start(spawn, timeout=10)
        with pytest.raises(CannotFork):
            async with asyncio.timeout(45):
                await helper.fork(Job(["x"], {}, "/"), null, null, null)
        assert bystander.returncode is None
    finally:
        os.close(null)
        await helper.close()
        bystander.kill()
        await bystander.wait()
