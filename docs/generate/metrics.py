"""The reference of the metrics, from where they are declared."""

from collections.abc import Callable

from consumer.observability.metrics import DECLARED
from docs.generate.markdown import code, table


def metrics() -> str:
    """Every metric, as the sentence that it answers."""
    rows = [(code(one.name), one.kind, ", ".join(map(code, one.labels)), f"{one.sentence}.") for one in DECLARED]
    return table(("metric", "kind", "labels", "what it tells"), rows)


PARTS: dict[str, Callable[[], str]] = {"metrics": metrics}
