"""What each kind of sandbox holds is tried by attacking from inside, and compared with the table in the documentation.

``SANDBOX_TABLE=write`` writes the table anew.
"""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from consumer.processes.launch.sandbox import no_bubblewrap

from .stage import SECRET
from .whom import NOBODY, ROOT, command_as, why_not

PAGE = ROOT / "docs" / "operations" / "sandbox.md"
BEGIN, END = "<!-- attacked: sandbox -->\n", "\n<!-- end -->"
COLUMNS = {
    "`bubblewrap`, root": ("root", "bubblewrap"),
    "`bubblewrap`, user": ("user", "bubblewrap"),
    "`limits`, root": ("root", "limits"),
    "`limits`, user": ("user", "limits"),
    "`none`, root": ("root", "none"),
    "`none`, user": ("user", "none"),
}


async def attacked(whom: str, kind: str, folder: Path) -> dict[str, bool]:
    """Every attack, and whether it worked, in a folder that everybody can reach and ``whom`` can write."""
    folder.chmod(0o755)
    if whom == "user" and os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    attack = await asyncio.create_subprocess_exec(
        *command_as(whom, "-m", "tests.security.host.stage", kind, str(folder)),
        env={**os.environ, "AMQP_URL": f"amqp://worker:{SECRET}@broker.example.com/"},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(attack.communicate(), 120)
    assert attack.returncode == 0, err.decode()
    found: dict[str, bool] = json.loads(out.splitlines()[-1])
    return found


def written() -> dict[str, dict[str, str]]:
    """The table of the page: what its cells say, by column and row."""
    head, _, *rows = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    _, *columns = cells(head)
    table: dict[str, dict[str, str]] = {column: {} for column in columns}
    for row in rows:
        attack, *said = cells(row)
        for column, cell in zip(columns, said, strict=True):
            table[column][attack] = cell
    return table


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def write(column: str, found: dict[str, str]) -> None:
    """Put what was found into its column."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    table = {
        **{column: {} for column in COLUMNS},
        **(written() if rest.partition(END)[0].strip() else {}),
        column: found,
    }
    lines = [f"| a server can ... | {' | '.join(table)} |", f"| --- |{' --- |' * len(table)}"]
    lines += [f"| {attack} | {' | '.join(table[one].get(attack, '') for one in table)} |" for attack in found]
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.partition(END)[2])


@pytest.mark.parametrize("column", COLUMNS)
async def test_each_kind_holds_what_the_page_says(column: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    whom, kind = COLUMNS[column]
    if reason := why_not(whom) or (kind == "bubblewrap" and await no_bubblewrap()):
        pytest.skip(f"left out: {str(reason).removeprefix('left out: ')}")
    folder = Path("/var/tmp") / f"mcp-attacked-{os.getpid()}-{whom}-{kind}"
    folder.mkdir()
    try:
        found = {
            attack: "**yes**" if worked else "no" for attack, worked in (await attacked(whom, kind, folder)).items()
        }
    finally:
        shutil.rmtree(folder)
    if os.environ.get("SANDBOX_TABLE") == "write":
        write(column, found)
    assert found == written()[column]
