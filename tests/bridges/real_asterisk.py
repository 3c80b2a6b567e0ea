"""A real Asterisk, private to a test: its own folder, ports on loopback, channels of the dialplan and no telephone."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from infra.loopback import LOOPBACK, end_group, free_port
from tests.bridges.standin import PASSWORD, USER

OPERATOR = "operator"
MODULES = (
    "res_sorcery_config", "res_sorcery_memory", "res_sorcery_astdb", "res_http_websocket", "res_websocket_client",
    "res_stasis", "res_stasis_recording", "res_stasis_playback", "res_stasis_snoop", "res_stasis_answer",
    "res_ari_model", "res_ari", "res_ari_applications", "res_ari_asterisk", "res_ari_channels", "res_ari_events",
    "app_stasis", "app_dial", "pbx_config", "bridge_simple", "res_timing_timerfd",
)  # fmt: skip
DIALPLAN = """
[calls]
exten => dial,1,Dial(Local/agent@calls/n,20)
exten => agent,1,Ringing()
 same => n,Wait(0.2)
 same => n,Answer()
 same => n,Wait(300)
exten => desk,1,Answer()
 same => n,Stasis(mcp-sessions)
 same => n,Wait(300)
exten => wait,1,Answer()
 same => n,Wait(300)
"""


def program() -> str | None:
    """The Asterisk that ``ASTERISK`` names, or the one of this system."""
    return os.environ.get("ASTERISK") or shutil.which("asterisk")


class Asterisk:
    """One that runs."""

    def __init__(self, http: int, ami: int, client: httpx2.AsyncClient) -> None:
        self.urls = {"ari": f"http://{LOOPBACK}:{http}", "ami": f"tcp://{LOOPBACK}:{ami}"}
        self._http = client

    async def call(self, extension: str, *, channel: str) -> None:
        """Begin a call: one half of a local channel is at an extension of the dialplan, the other waits."""
        asked = {
            "endpoint": f"Local/{extension}@calls/n", "extension": "wait", "context": "calls", "priority": "1",
            "channelId": channel, "otherChannelId": f"{channel}-other", "callerId": "+15550100",
        }  # fmt: skip
        (await self._http.post("/channels", params=asked)).raise_for_status()

    async def leave_application(self, channel: str) -> None:
        (await self._http.post(f"/channels/{channel}/continue")).raise_for_status()

    async def hang_up(self, channel: str) -> None:
        await self._http.delete(f"/channels/{channel}")

    async def channels(self) -> set[str]:
        return {str(one["id"]) for one in (await self._http.get("/channels")).json()}


@asynccontextmanager
async def asterisk(folder: Path) -> AsyncIterator[Asterisk]:
    """Start one; it is gone with everything at the end."""
    found = program()
    assert found is not None
    http, ami = free_port(), free_port()
    etc = folder / "etc"
    for name in ("etc", "run", "log", "spool", "db", "keys"):
        (folder / name).mkdir(parents=True)
    for name, text in configuration(found, folder, http, ami).items():
        (etc / name).write_text(text)
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [found, "-C", str(etc / "asterisk.conf"), "-f"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    root = f"http://{LOOPBACK}:{http}/ari"
    try:
        async with httpx2.AsyncClient(base_url=root, auth=(OPERATOR, OPERATOR), trust_env=False) as client:
            made = Asterisk(http, ami, client)
            async with asyncio.timeout(30):
                while not await _answers(client):
                    assert process.poll() is None, (folder / "output").read_text()
                    await asyncio.sleep(0.1)
            yield made
    finally:
        await asyncio.to_thread(end_group, process)


async def _answers(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/asterisk/info")).status_code == 200
    except httpx2.HTTPError:
        return False


def configuration(found: str, folder: Path, http: int, ami: int) -> dict[str, str]:
    own = {"astetcdir": "etc", "astrundir": "run", "astlogdir": "log", "astspooldir": "spool", "astdbdir": "db",
           "astkeydir": "keys", "astcachedir": "db"}  # fmt: skip
    directories = "".join(f"{name} => {folder / where}\n" for name, where in own.items())
    return {
        "asterisk.conf": f"[directories]\n{directories}[options]\nsystemname = pbx1\n",
        "modules.conf": "[modules]\nautoload = no\n" + "".join(f"load = {name}.so\n" for name in MODULES),
        "http.conf": f"[general]\nenabled = yes\nbindaddr = {LOOPBACK}\nbindport = {http}\n",
        "ari.conf": f"[general]\nenabled = yes\n[{USER}]\ntype = user\nread_only = yes\npassword = {PASSWORD}\n"
        f"[{OPERATOR}]\ntype = user\npassword = {OPERATOR}\n",
        "manager.conf": f"[general]\nenabled = yes\nbindaddr = {LOOPBACK}\nport = {ami}\n"
        f"[{USER}]\nsecret = {PASSWORD}\nread = call\nwrite = reporting\n",
        "extensions.conf": DIALPLAN,
        "logger.conf": "[logfiles]\nconsole => warning,error\n",
        "websocket_client.conf": "",
    }
