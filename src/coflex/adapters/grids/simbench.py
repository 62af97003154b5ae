"""SimBench grids as coflex tables.

Source: S. Meinecke et al., "SimBench - A Benchmark Dataset of Electric Power Systems to Compare Innovative
Solutions Based on Power Flow Analysis", Energies 13 (2020) 3290, DOI 10.3390/en13123290. SimBench stamps its year
2016 in German local time: 35,136 quarter-hours, with a missing hour in March and a repeated one in October.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any, get_args, get_type_hints
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coflex.adapters.grids.pandapower_net import tables_of
from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, midnight
from coflex.grid.tables import GridTables

CACHE_VERSION = 3
ZONE = ZoneInfo("Europe/Berlin")
YEAR = Axis(
    midnight(date(2016, 1, 1), ZONE), (midnight(date(2017, 1, 1), ZONE) - midnight(date(2016, 1, 1), ZONE)) // QUARTER
)

_INJECTING = ("load", "sgen", "storage")
_NAMED = ("bus", "line", "trafo", "switch", "ext_grid", *_INJECTING)
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, eq=False)
class SimbenchGrid:
    """A grid and the profiles of its year: shares of each element's power, on the UTC axis of the year."""

    grid: GridTables
    profiles: Series


def load_grid(code: str, cache: Path) -> SimbenchGrid:
    """The grid of a SimBench code, converted once and kept in `cache/<code>` as Parquet tables.

    The first call reads SimBench (seconds); later ones do not import it. A cache of another version is replaced
    as a whole, never in part.
    """
    if not _CODE.fullmatch(code):
        raise _unknown(code)
    folder = cache / code
    if _version(folder) == CACHE_VERSION:
        return _read_cache(folder)
    converted = read_simbench(code)
    _write_cache(folder, converted)
    return converted


def read_simbench(code: str) -> SimbenchGrid:
    """Read a SimBench grid, such as "1-MV-urban--0-sw", with the profiles of its year.

    Devices keep SimBench's names; what is out of service stays outside. Storages lose their SimBench profile:
    here they rest until called. Raises Refused, naming the row, when the stamps of SimBench are not the local
    labels of the year 2016; CoflexError when there is no such grid.
    """
    from simbench import collect_all_simbench_codes, get_simbench_net

    if code not in collect_all_simbench_codes():
        raise _unknown(code)
    net = get_simbench_net(code)
    return SimbenchGrid(_tables(net), _profiles(net.profiles))


def pandapower_of(code: str) -> Any:
    """The pandapower net of a SimBench code, for comparison.

    SimBench names a tap step without the kind of tap changer, which pandapower then leaves out of its power
    flow; here it is set to "Ratio" wherever a step is given, as our tables count it.
    """
    from simbench import get_simbench_net

    net = get_simbench_net(code)
    _set_tap_changers(net)
    return net


def _unknown(code: str) -> CoflexError:
    return CoflexError(f"There is no SimBench grid '{code}'.", "Write a code such as 1-MV-urban--0-sw.")


def _tables(net: Any) -> GridTables:
    """The tables of a net with the names of its profiles; storages rest."""
    net = _prepared(net)
    grid, _ = tables_of(net)
    profile = {row.name: row.profile for table in (net.load, net.sgen) for row in table.itertuples()}
    return replace(
        grid,
        loads=tuple(
            replace(row, profile_p=f"{profile[row.load]}_pload", profile_q=f"{profile[row.load]}_qload")
            for row in grid.loads
        ),
        generators=tuple(
            replace(row, profile=f"{profile[row.generator]}_res") if row.generator in profile else row
            for row in grid.generators
        ),
    )


def _prepared(net: Any) -> Any:
    """The net in pandapower's own ways: tap changers of a kind, names given once, percents, storages at rest.

    The second of a name gets " (2)", and so on; loads, generators and storages share one count.
    """
    net = copy(net)
    for table in _NAMED:
        net[table] = net[table].copy()
    used: Counter[str] = Counter()
    for table in _NAMED:
        net[table]["name"] = _names(net[table], used if table in _INJECTING else Counter())
    _set_tap_changers(net)
    if len(net.storage):
        # SimBench fills this column with a share although its name says percent.
        share = net.storage.efficiency_percent
        net.storage["efficiency_percent"] = share.where(share > 1, share * 100)
        net.storage[["p_mw", "q_mvar"]] = 0.0
    return net


def _names(frame: Any, used: Counter[str]) -> list[str]:
    names = []
    for name in frame.name.astype(str):
        used[name] += 1
        names.append(name if used[name] == 1 else f"{name} ({used[name]})")
    return names


def _set_tap_changers(net: Any) -> None:
    stepped = net.trafo.tap_step_percent.fillna(0) != 0
    net.trafo.loc[stepped, "tap_changer_type"] = "Ratio"


def _profiles(frames: Mapping[str, Any]) -> Series:
    """Load profiles under their own names, those of generators with "_res" behind."""
    columns: dict[str, Any] = {}
    findings: list[Finding] = []
    labels = [instant.astimezone(ZONE).strftime("%d.%m.%Y %H:%M") for instant in YEAR]
    for kind, suffix in (("load", ""), ("renewables", "_res"), ("powerplants", "_res")):
        frame = frames[kind]
        findings.extend(_check_stamps(f"SimBench profiles, {kind}", list(frame["time"]), labels))
        columns.update({f"{name}{suffix}": frame[name] for name in frame.columns if name != "time"})
    refuse("The SimBench profiles", findings)
    names = tuple(sorted(columns))
    return Series(names, YEAR, np.array([columns[name].to_numpy(dtype=np.float64) for name in names]))


def _check_stamps(place: str, stamps: Sequence[str], labels: Sequence[str]) -> list[Finding]:
    if len(stamps) != len(labels):
        message = f"There are {len(stamps)} rows instead of {len(labels)}; use a grid with the profiles of 2016."
        return [Finding(place, "wrong_row_count", message)]
    wrong = [row for row, pair in enumerate(zip(stamps, labels, strict=True)) if pair[0] != pair[1]]
    return [
        Finding(f"{place}, row {row}", "wrong_stamp", f"'{stamps[row]}' stands where {labels[row]} belongs.")
        for row in wrong[:10]
    ]


def _version(folder: Path) -> int | None:
    try:
        return int((folder / "version").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _write_cache(folder: Path, converted: SimbenchGrid) -> None:
    """Write a folder beside its place and move it there whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as room:
        fresh = Path(room) / "fresh"
        fresh.mkdir()
        for field in fields(GridTables):
            rows = [asdict(row) for row in getattr(converted.grid, field.name)]
            pq.write_table(pa.Table.from_pylist(rows), fresh / f"{field.name}.parquet")
        series = converted.profiles
        pq.write_table(pa.table(dict(zip(series.names, series.values, strict=True))), fresh / "profiles.parquet")
        (fresh / "version").write_text(f"{CACHE_VERSION}\n", encoding="utf-8")
        try:
            with suppress(FileNotFoundError):
                folder.rename(Path(room) / "outdated")
            fresh.rename(folder)
        except OSError:
            # Another process may have put the same there in the meantime.
            if _version(folder) != CACHE_VERSION:
                raise


def _read_cache(folder: Path) -> SimbenchGrid:
    tables = {}
    for name, hint in get_type_hints(GridTables).items():
        kind = get_args(hint)[0]
        tables[name] = tuple(kind(**row) for row in pq.read_table(folder / f"{name}.parquet").to_pylist())
    columns = pq.read_table(folder / "profiles.parquet")
    values = np.array([column.to_numpy() for column in columns.itercolumns()])
    return SimbenchGrid(GridTables(**tables), Series(tuple(columns.column_names), YEAR, values))
