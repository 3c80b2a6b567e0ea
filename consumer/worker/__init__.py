"""The composition root: one worker, from its settings to its last acknowledgement. Only this room knows everybody."""

from consumer.worker.exit_codes import Exit
from consumer.worker.worker import Worker, run_worker

__all__ = ["Exit", "Worker", "run_worker"]
