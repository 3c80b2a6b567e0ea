"""The composition root: one worker, from its settings to its last acknowledgement.

Only this room imports all others.
"""

from consumer.worker.exit_codes import WorkerExit
from consumer.worker.worker import Worker, run_worker

__all__ = ["Worker", "WorkerExit", "run_worker"]
