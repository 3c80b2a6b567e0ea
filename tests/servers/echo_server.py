"""Starts the echo server. Its module is compiled once; a script is compiled at each start."""

from echo import TOOLS, main  # type: ignore[import-not-found]

__all__ = ["TOOLS", "main"]

if __name__ == "__main__":
    main()
