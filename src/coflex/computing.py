"""What the service's worker process runs: the answer to a job, on the case that it names.

The server names `compute` and never runs it: grid and solver are imported in the worker alone, when it is first asked.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from coflex.domain.errors import CoflexError
from coflex.process.ports import Case
from coflex.register.work import Answer, Job
from coflex.simulation.demo import TENANT, demo_case


def compute(job: Job) -> Answer:
    """The answer to a job, or why there is none."""
    from coflex.adapters.store.memory import MemoryStore
    from coflex.process.answering import answer

    try:
        case = case_of(job.case)
    except CoflexError as fault:
        return Answer(fault=str(fault))
    return answer(job, case, MemoryStore)


@lru_cache(maxsize=4)
def case_of(name: str) -> Case:
    """The case of a name: the demo, or a folder. Raises Refused with the faults of the folder."""
    if name == TENANT:
        return demo_case()
    # Its reader is imported here: the demo does without tables.
    from coflex.adapters.exchange.tables.case_folder import read_case

    return read_case(Path(name))
