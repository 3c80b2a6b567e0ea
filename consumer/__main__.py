"""``python -m consumer``: the same as ``mcp-sessions worker``, with the same options."""

import sys

from consumer.cli import main

if __name__ == "__main__":
    main(["worker", *sys.argv[1:]])
