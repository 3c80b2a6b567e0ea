"""An agent as its user writes it: SignalWire's own skill, and the address of the gateway."""

import os

from signalwire import AgentBase  # type: ignore[import-not-found]


class Agent(AgentBase):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="clerk", route="/clerk")
        given = {"gateway_url": os.environ["GATEWAY_URL"], "services": [{"name": os.environ["SERVICE"]}]}
        if os.environ.get("GATEWAY_TOKEN"):
            given["auth_token"] = os.environ["GATEWAY_TOKEN"]
        else:
            given |= {"auth_user": os.environ["GATEWAY_USER"], "auth_password": os.environ["GATEWAY_PASSWORD"]}
        self.add_skill("mcp_gateway", given)


agent = Agent()
