"""The AsyncAPI document, as AsyncAPI's own parser reads it."""

import re
import sys
from pathlib import Path

from infra import npm
from infra.checks.common import ROOT, Faults


def asyncapi(root: Path = ROOT) -> Faults:
    """AsyncAPI's own parser takes our document; without npm it is told that nobody has asked it."""
    for name in ("package-lock.json", ".npmrc"):
        if re.search(r"resolved\"|registry=", (root / "infra" / "node" / name).read_text()):
            yield f"infra/node/{name}: names a place to fetch from"
    if not npm.available():
        print("docs/asyncapi.json: AsyncAPI's parser has not seen it, for want of npm", file=sys.stderr)
        return
    try:
        done = npm.run("asyncapi.mjs", str(root / "docs" / "asyncapi.json"))
    except npm.NpmFailed as error:
        yield f"infra/node: npm cannot install what package-lock.json says: {error}"
        return
    if done.returncode:
        yield from (f"docs/asyncapi.json: {line}" for line in (done.stdout or done.stderr).splitlines())
