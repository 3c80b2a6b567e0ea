"""What Wazo's and Asterisk's own events share: the states of a channel, and what tells the one from the other."""

CHANNEL_STATES = {
    "down": "created",
    "rsrvd": "created",
    "offhook": "created",
    "dialing": "ringing",
    "dialing offhook": "ringing",
    "pre-ring": "ringing",
    "ring": "ringing",
    "ringing": "ringing",
    "up": "answered",
}
"""How far a call is, by the state of its channel in lower case."""

OF_WAZO = ("origin_uuid", "tenant_uuid", "required_acl", "required_access")
"""What every event of the Wazo bus has one of."""
