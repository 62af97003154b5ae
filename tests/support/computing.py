"""What a worker process runs in tests: no grid, but crashes and delays on demand, told by the name of the case."""

from __future__ import annotations

import os
import signal
import time

from coflex.register.work import Answer, Job


def computing(job: Job) -> Answer:
    """The process that answers, or what becomes of it."""
    if job.case == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.case == "sleeps":
        time.sleep(60)
    if job.case == "raises":
        raise ValueError("no such thing")
    return Answer(str(os.getpid()).encode())
