"""Placing and owning: what becomes of a call's messages. Decides; speaks to the broker room, never to its library.

``intake`` turns raw events into messages that are addressed to calls, ``placer`` finds an owner for a call that has
none, ``owner`` lives the calls of this worker, ``uses`` runs what uses a session, ``queries`` answers for the cluster
and ``presence`` knows who is there and how much room each has.
"""
