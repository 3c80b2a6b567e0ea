"""A server's output: it goes to one reader, from its first byte, whenever that begins to read."""

import asyncio
import os
import sys

import psutil
import pytest

from consumer.processes.launch.launcher import LocalLauncher
from consumer.processes.stdio.process import ServerProcess

from .helpers import service

BOUND = 20.0


class Reading:
    """The reader of a process: what it got, and how often it was told of the end."""

    def __init__(self, process: ServerProcess) -> None:
        self.data = b""
        self.ends = 0
        self._ended = asyncio.Event()
        self.pipe = process.read_stdout(self._feed, self._end)

    def _feed(self, data: bytes) -> None:
        self.data += data

    def _end(self) -> None:
        self.ends += 1
        self._ended.set()

    async def until(self, data: bytes) -> None:
        async with asyncio.timeout(BOUND):
            while self.data != data:
                await asyncio.sleep(0.01)

    async def ended(self) -> None:
        async with asyncio.timeout(BOUND):
            await self._ended.wait()


async def test_what_it_writes_before_anybody_reads_is_there_even_after_its_exit(launcher: LocalLauncher) -> None:
    async with launcher.launch(service(command=["sh", "-c", "echo early"])) as process:
        ending = await process.wait_gone(BOUND)
        assert ending is not None
        assert ending.exit_code == 0
        reading = Reading(process)
        await reading.ended()
        assert reading.data == b"early\n"
    assert reading.ends == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a test open another's pipe")
async def test_the_end_is_told_once_although_another_process_holds_the_pipe_open(launcher: LocalLauncher) -> None:
    async with launcher.launch(service(command=["sh", "-c", "echo runs; read line; exit 3"])) as process:
        reading = Reading(process)
        await reading.until(b"runs\n")
        held = os.open(f"/proc/{process.pid}/fd/1", os.O_WRONLY)
        try:
            process.write(b"go\n")
            await reading.ended()
            assert process.exit is not None, "it is told with the end of the process"
            assert process.exit.exit_code == 3
        finally:
            os.close(held)
    assert (reading.data, reading.ends) == (b"runs\n", 1)


async def test_a_reader_that_pauses_gets_the_rest_when_it_goes_on(launcher: LocalLauncher) -> None:
    async with launcher.launch(service(command=["sh", "-c", "read line; echo $line; read line; exit 0"])) as process:
        reading = Reading(process)
        reading.pipe.pause()
        process.write(b"one\n")
        await asyncio.sleep(0.3)
        assert reading.data == b""
        reading.pipe.resume()
        await reading.until(b"one\n")
        assert reading.ends == 0


async def test_a_process_whose_output_nobody_reads_leaves_no_descriptor(launcher: LocalLauncher) -> None:
    this = psutil.Process()
    async with launcher.launch(service()):
        pass  # from now on the keeper is there
    before = this.num_fds()
    for _ in range(3):
        async with launcher.launch(service()) as process:
            assert this.num_fds() > before
    assert process.exit is not None
    assert this.num_fds() == before
