"""pandapower's JSON files as coflex tables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from coflex.adapters.grids.pandapower_net import tables_of
from coflex.domain.errors import CoflexError, Finding
from coflex.grid.tables import GridTables


def read_pandapower(path: Path, model: Literal["pi", "t"] = "pi") -> tuple[GridTables, tuple[Finding, ...]]:
    """The tables of a net that pandapower's `to_json` wrote, and what is worth knowing about them.

    Files of older versions of pandapower are brought up to date by it. `model`: see `pandapower_net.tables_of`.
    Raises CoflexError where pandapower cannot read the file, Refused where an element has no counterpart here.
    """
    import pandapower

    try:
        net = pandapower.from_json(str(path))
    except Exception as failure:  # whatever pandapower's reader meets in a file that is not its own
        raise CoflexError(
            f"{path.name} cannot be read as a pandapower net ({type(failure).__name__}: {failure}).",
            "Write it with pandapower.to_json.",
        ) from failure
    if not isinstance(net, pandapower.auxiliary.pandapowerNet):
        raise CoflexError(f"{path.name} holds no pandapower net.", "Write it with pandapower.to_json.")
    return tables_of(net, model)
