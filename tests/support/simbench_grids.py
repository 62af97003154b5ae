"""SimBench grids for tests: read once for all tests of a run, since SimBench takes seconds for each."""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pytest

from coflex.adapters.grids.simbench import SimbenchGrid, load_grid, pandapower_of

URBAN = "1-MV-urban--0-sw"


@pytest.fixture(scope="session")
def grids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where converted grids and pandapower's nets are kept, for every process that runs tests of this run."""
    own = tmp_path_factory.getbasetemp()
    room = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "grids"
    room.mkdir(exist_ok=True)
    return room


@pytest.fixture(scope="session")
def urban(grids: Path) -> SimbenchGrid:
    """The SimBench grid 1-MV-urban--0-sw: 144 buses, 147 lines, two transformers, open ring lines."""
    return load_grid(URBAN, grids)


def net_of(code: str, grids: Path) -> Any:
    """The pandapower net of a SimBench code, a new one with each call."""
    kept = grids / f"{code}.pickle"
    if not kept.exists():
        with tempfile.NamedTemporaryFile(dir=grids, delete=False) as file:
            pickle.dump(pandapower_of(code), file)
        os.replace(file.name, kept)
    return pickle.loads(kept.read_bytes())
