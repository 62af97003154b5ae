"""SimBench grids for tests: read once for all tests of a run, since SimBench takes seconds for each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coflex.adapters.grids.simbench import SimbenchGrid, load_grid, pandapower_of
from support.shared import once

URBAN = "1-MV-urban--0-sw"


@pytest.fixture(scope="session")
def grids(shared: Path) -> Path:
    """Where converted grids and pandapower's nets are kept."""
    room = shared / "grids"
    room.mkdir(exist_ok=True)
    return room


@pytest.fixture(scope="session")
def urban(grids: Path) -> SimbenchGrid:
    """The SimBench grid 1-MV-urban--0-sw: 144 buses, 147 lines, two transformers, open ring lines."""
    return load_grid(URBAN, grids)


def net_of(code: str, grids: Path) -> Any:
    """The pandapower net of a SimBench code, a new one with each call."""
    return once(grids / f"{code}.pickle", partial(pandapower_of, code))
