"""``mcp-sessions top``: a live view of the workers, their sessions, and what happens.

``known`` is the known state of the cluster, ``view`` the user's choices, and ``picture`` makes lines from both.
``keys`` parses the keyboard input. All these are pure. ``watching`` asks the workers and follows their events.
``terminal`` uses the screen and the keyboard, and restores them afterwards. ``live`` runs them.
"""

from consumer.cli.top.start import register

__all__ = ["register"]
