"""The current link of a worker, and its questions to the broker besides consuming."""

from consumer.broker.declare import consumers_of, ensure
from consumer.broker.errors import BrokerUnavailable
from consumer.broker.link import Link
from consumer.broker.topology import Names, dead_letter_topology
from schemas.ids import WorkerId


class CurrentLink:
    """Knows the current link; requests raise ``BrokerUnavailable`` while there is none, or when it is lost."""

    def __init__(self, names: Names, max_dead_letter_bytes: int) -> None:
        self._names = names
        self._max_dead_letter_bytes = max_dead_letter_bytes
        self._link: Link | None = None

    def attach(self, link: Link) -> None:
        """Use a new link."""
        self._link = link

    def detach(self) -> None:
        """Note that the link is lost."""
        self._link = None

    def restart(self, reason: str) -> None:
        """Drop the link, if there is one. The next link declares and consumes everything again."""
        if self._link is not None:
            self._link.fail(reason)

    async def consumed(self, worker: WorkerId) -> bool:
        """Whether a worker's inbox has a consumer."""
        return await consumers_of(self._present(), self._names.inbox(worker)) > 0

    async def restore_dead_letters(self) -> None:
        """Declare the dead-letter queue again, because it was deleted."""
        await ensure(self._present(), dead_letter_topology(self._names, self._max_dead_letter_bytes))

    def _present(self) -> Link:
        if self._link is None:
            raise BrokerUnavailable("there is no link")
        return self._link
