"""Placing and owning: decides what happens to the messages of a call. It uses the broker room, never its library.

``intake`` turns raw events into messages that are addressed to calls. ``placement`` finds an owner for a call that has
none. ``ownership`` runs a call on its owner from start to end, and ``requests`` answers the requests to its sessions.
``queries`` answers for the cluster, and ``cluster`` knows which workers are there and how much room each has.
"""
