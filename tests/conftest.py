"""Shared fixtures. pytest puts this folder on the path, so tests import `support` as it stands."""

from __future__ import annotations

import pytest

from coflex.adapters.grids.simbench import SimbenchGrid, load_grid
from support.postgres import postgresql

__all__ = ["postgresql", "urban"]


@pytest.fixture(scope="session")
def urban(tmp_path_factory: pytest.TempPathFactory) -> SimbenchGrid:
    """The SimBench grid 1-MV-urban--0-sw: 144 buses, 147 lines, two transformers, open ring lines."""
    return load_grid("1-MV-urban--0-sw", tmp_path_factory.mktemp("simbench"))
