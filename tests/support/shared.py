"""What all processes that run tests share, so that what is dear is made once a run."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run."""
    own = tmp_path_factory.getbasetemp()
    room = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    room.mkdir(exist_ok=True)
    return room


def once(kept: Path, make: Callable[[], T]) -> T:
    """What `make` gives, made by whoever asks first; a new copy with each call."""
    if not kept.exists():
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
            pickle.dump(make(), file)
        os.replace(file.name, kept)
    made: T = pickle.loads(kept.read_bytes())
    return made
