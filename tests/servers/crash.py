"""A server that cannot even be imported, as mcp-server-sqlite cannot with today's SDK."""

import importlib

importlib.import_module("a_module_that_nobody_has")
