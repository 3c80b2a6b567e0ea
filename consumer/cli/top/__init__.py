"""``mcp-sessions top``: a live view of the workers, their sessions, and what happens.

``known`` is what has been heard of the cluster, ``view`` what the person at the keys has chosen, ``picture`` makes
lines of both; these are pure. ``keys`` reads keys out of bytes. The edges are ``watching``, which asks the workers and
follows their events, and ``terminal``: what the screen and the keyboard were before, they are afterwards. ``live``
runs them.
"""

from consumer.cli.top.start import register

__all__ = ["register"]
