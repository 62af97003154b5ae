"""Every command of these tests is held against the table of fields: nobody writes what is not its own (REG-11)."""

from __future__ import annotations

import pytest

from coflex.service.machine import Machine
from support.watched import watched


@pytest.fixture(autouse=True, scope="module")
def _the_table_of_fields_holds() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Machine, "apply", watched(Machine.apply))
        yield
