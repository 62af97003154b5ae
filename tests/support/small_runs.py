"""The designs of the shelf on the small case, each run once for all tests of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from coflex.market.coordination.outcome import Run
from coflex.market.coordination.run import run
from coflex.market.design import load_design
from coflex.simulation.coordination.small import small
from support.shared import once


@pytest.fixture(scope="session")
def on_the_small_case(shared: Path) -> Callable[[str], Run]:
    """The run of a design, by its name."""

    @cache
    def ran(name: str) -> Run:
        return once(shared / f"small-{name}.pickle", lambda: run(load_design(name), small()))

    return ran
