"""What the events of Wazo and Asterisk share: the states of a channel, and the fields that distinguish them."""

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
"""The state of a call by the state of its channel in lower case."""

OF_WAZO = ("origin_uuid", "tenant_uuid", "required_acl", "required_access")
"""Fields of which every event of the Wazo bus has one."""
