"""Checks the AsyncAPI document with AsyncAPI's own parser."""

import re
import sys
from pathlib import Path

from infra import npm
from infra.checks.common import ROOT, Faults


def asyncapi(root: Path = ROOT) -> Faults:
    """Check that AsyncAPI's own parser accepts our document. Without npm, note that this was not checked."""
    for name in ("package-lock.json", ".npmrc"):
        if re.search(r"resolved\"|registry=", (root / "infra" / "node" / name).read_text()):
            yield f"infra/node/{name}: contains a download address"
    if not npm.available():
        print("docs/asyncapi.json: not checked by AsyncAPI's parser, because npm is missing", file=sys.stderr)
        return
    try:
        done = npm.run("asyncapi.mjs", str(root / "docs" / "asyncapi.json"))
    except npm.NpmFailed as error:
        yield f"infra/node: npm cannot install what package-lock.json says: {error}"
        return
    if done.returncode:
        yield from (f"docs/asyncapi.json: {line}" for line in (done.stdout or done.stderr).splitlines())
