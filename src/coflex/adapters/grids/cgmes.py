"""CGMES (CIM) files as coflex tables: read by pypowsybl, or where it refuses them by pandapower.

Source: ENTSO-E, Common Grid Model Exchange Standard 2.4.15 and 3.0 (IEC 61970-600). Both readers are imported when
first needed.
"""

from __future__ import annotations

import io
import logging
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from coflex.adapters.grids import pandapower_net, powsybl_net
from coflex.adapters.grids.powsybl_net import Keys
from coflex.domain.errors import CoflexError, Finding, Refused, refuse
from coflex.grid.tables import GridTables

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_PRIORITY = ("SynchronousMachine.referencePriority", "ExternalNetworkInjection.referencePriority")
_CONSUMERS = ("EnergyConsumer", "ConformLoad", "NonConformLoad", "StationSupply")
# What a power flow cannot do without, by table of pandapower.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "bus": ("vn_kv",),
    "line": ("length_km", "r_ohm_per_km", "x_ohm_per_km"),
    "trafo": ("sn_mva", "vn_hv_kv", "vn_lv_kv", "vk_percent", "vkr_percent", "pfe_kw", "i0_percent"),
    "trafo3w": tuple(
        name for side in ("hv", "mv", "lv") for name in (f"sn_{side}_mva", f"vn_{side}_kv", f"vk_{side}_percent")
    ),
    "load": ("p_mw", "q_mvar"),
    "sgen": ("p_mw", "q_mvar"),
    "gen": ("p_mw", "vm_pu"),
    "ext_grid": ("vm_pu",),
    "shunt": ("p_mw", "q_mvar"),
}


@dataclass(frozen=True, eq=False)
class Cim:
    """What the files themselves say: reference priority by machine, the topological nodes at which solved states have
    their angle, lengths of lines in km."""

    files: Mapping[str, bytes]
    priorities: dict[str, int] = field(default_factory=dict)
    reference_nodes: list[str] = field(default_factory=list)
    lengths_km: dict[str, float] = field(default_factory=dict)
    consumers: set[str] = field(default_factory=set)
    powers: set[str] = field(default_factory=set)


def read_cgmes(path: Path | Sequence[Path], keys: Keys = "name") -> tuple[GridTables, tuple[Finding, ...]]:
    """The tables of a CGMES model, and what is worth knowing about them.

    `path`: a zip file, a folder, or several files; a boundary set belongs among them. `keys`: devices are called by
    their names where these are unique and by mRID else, or ("mrid") always by mRID. The source is the machine of
    the highest reference priority; where none has one, a finding says which was taken and why. Raises Refused naming
    every element that cannot be converted, CoflexError where neither reader can read the files.
    """
    cim = _open(path)
    try:
        network = _network(cim)
    except Exception as failure:  # the reader's own exceptions have no common type
        return _second(cim, keys, failure)
    return _tables(network, cim, keys)


def read_by_pandapower(path: Path | Sequence[Path], keys: Keys = "name") -> tuple[GridTables, tuple[Finding, ...]]:
    """The second reading, by pandapower's `from_cim`. Raises as `read_cgmes`; values it could not find are faults."""
    return _by_pandapower(_open(path), keys)


def compare(path: Path | Sequence[Path]) -> tuple[Finding, ...]:
    """Where the two readings of a model differ: devices that only one has, and values apart by more than 1e-6.

    A reading that fails is the only finding. Raises CoflexError where there are no files to read.
    """
    cim = _open(path)
    readings = []
    for reader, read in (("pypowsybl", _by_powsybl), ("pandapower", _by_pandapower)):
        try:
            readings.append(read(cim, "mrid")[0])
        except Exception as failure:  # as above; a comparison says so and does not fail
            why = "; ".join(map(str, failure.findings[:3])) if isinstance(failure, Refused) else str(failure)
            return (Finding("CGMES", "one_reading", f"{reader} does not read it ({why}); there is no second opinion."),)
    return tuple(sorted(_differences(*readings)))


# ---------------------------------------------------------------- files


def _open(path: Path | Sequence[Path]) -> Cim:
    files: dict[str, bytes] = {}
    for one in [path] if isinstance(path, Path) else path:
        found = sorted(one.rglob("*")) if one.is_dir() else [one]
        for file in found:
            if file.suffix.lower() == ".xml":
                files[file.name] = file.read_bytes()
            elif file.suffix.lower() == ".zip":
                files.update(_unzipped(file.name, file.read_bytes()))
    if not files:
        shown = path if isinstance(path, Path) else ", ".join(map(str, path))
        raise CoflexError(f"There are no CGMES files in {shown}.", "Give a zip file or a folder of XML profiles.")
    cim = Cim(files)
    for name, data in files.items():
        _scan(cim, name, data)
    return cim


def _unzipped(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The profiles in a zip file, and in zip files inside it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for inner in sorted(archive.namelist()):
                if inner.lower().endswith(".xml"):
                    yield Path(inner).name, archive.read(inner)
                elif inner.lower().endswith(".zip"):
                    yield from _unzipped(inner, archive.read(inner))
    except zipfile.BadZipFile as failure:
        raise CoflexError(f"{name} is not a zip file.", "Give a zip file or a folder of XML profiles.") from failure


def _scan(cim: Cim, name: str, data: bytes) -> None:
    try:
        for _, element in ElementTree.iterparse(io.BytesIO(data)):
            key = _key(element.get(f"{_RDF}about") or element.get(f"{_RDF}ID") or "")
            if element.tag.rpartition("}")[2] in _CONSUMERS:
                cim.consumers.add(key)
            for child in element:
                tag = child.tag.rpartition("}")[2]
                if tag == "EnergyConsumer.p":
                    cim.powers.add(key)
                elif tag in _PRIORITY:
                    cim.priorities[key] = int(child.text or 0)
                elif tag == "TopologicalIsland.AngleRefTopologicalNode":
                    cim.reference_nodes.append(_key(child.get(f"{_RDF}resource") or ""))
                elif tag == "Conductor.length":
                    cim.lengths_km[key] = float(child.text or 0)
    except (ElementTree.ParseError, ValueError) as failure:
        raise CoflexError(f"{name} is no CIM file ({failure}).", "Give the profiles as RDF/XML.") from failure


def _key(reference: str) -> str:
    """An mRID as both readers write it."""
    return reference.removeprefix("#").removeprefix("urn:uuid:").removeprefix("_")


# ---------------------------------------------------------------- first reading


def _network(cim: Cim) -> Any:
    # It warns of a solver of its own when it is imported, which is not asked here.
    logging.getLogger("powsybl").setLevel(logging.ERROR)
    import pypowsybl.network

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in cim.files.items():
            archive.writestr(name, data)
    return pypowsybl.network.load_from_binary_buffer(packed)  # type: ignore[attr-defined]


def _by_powsybl(cim: Cim, keys: Keys) -> tuple[GridTables, tuple[Finding, ...]]:
    return _tables(_network(cim), cim, keys)


def _tables(network: Any, cim: Cim, keys: Keys) -> tuple[GridTables, tuple[Finding, ...]]:
    grid, notes = powsybl_net.tables_of(network, cim.priorities, cim.reference_nodes, cim.lengths_km, keys)
    names = powsybl_net.names_of(network, keys)
    # A power that SSH does not give comes from the solved state, or is zero without a word.
    silent = {names[key] for key in names if key in cim.consumers and key not in cim.powers}
    more = (
        Finding(
            f"CGMES: {load.load}",
            "power_not_given",
            f"SSH gives it no power; {load.p_mw:.4g} MW are taken from the other profiles. Add EnergyConsumer.p.",
        )
        for load in grid.loads
        if load.load in silent
    )
    return grid, tuple(sorted({*notes, *more}))


# ---------------------------------------------------------------- second reading


def _second(cim: Cim, keys: Keys, failure: Exception) -> tuple[GridTables, tuple[Finding, ...]]:
    try:
        grid, notes = _by_pandapower(cim, keys)
    except Refused:
        raise
    except Exception as other:  # whatever the second reader meets in files the first refused
        raise CoflexError(
            f"Neither reader can read these files (pypowsybl: {failure}; pandapower: {other}).",
            "Give EQ, TP, SSH and SV profiles of one model with the boundary set they refer to.",
        ) from failure
    message = f"pypowsybl does not read it ({failure}); this is pandapower's reading. Check it before use."
    return grid, tuple(sorted({*notes, Finding("CGMES", "second_reading", message)}))


def _by_pandapower(cim: Cim, keys: Keys) -> tuple[GridTables, tuple[Finding, ...]]:
    from pandapower.converter.cim.cim2pp.from_cim import from_cim

    with tempfile.TemporaryDirectory() as room:
        for name, data in cim.files.items():
            (Path(room) / name).write_bytes(data)
        net = from_cim(file_list=[str(Path(room) / name) for name in cim.files])
    refuse("The CGMES model, as pandapower reads it", _missing(net))
    notes = _set_slack(net, cim)
    if keys == "mrid":
        for table in ("bus", "line", "trafo", "trafo3w", "switch", "load", "sgen", "gen", "ext_grid", "shunt", "ward"):
            if "origin_id" in net[table]:
                net[table]["name"] = [_key(str(one)) for one in net[table].origin_id]
    grid, found = pandapower_net.tables_of(net)
    return grid, tuple(sorted({*found, *notes}))


def _missing(net: Any) -> Iterator[Finding]:
    """Values that pandapower's reader left empty."""
    for table, columns in _NEEDED.items():
        frame = net[table]
        frame = frame[frame.in_service.astype(bool)] if len(frame) else frame
        for row in frame.itertuples():
            for column in columns:
                value = getattr(row, column, None)
                if value is None or value != value:
                    message = f"pandapower finds no {column}; complete the profiles of the model."
                    yield Finding(f"CGMES: {_label(row)}", "not_a_number", message)


def _set_slack(net: Any, cim: Cim) -> tuple[Finding, ...]:
    """Make one machine the source, by the same rule as the first reading."""
    if len(net.ext_grid) and net.ext_grid.in_service.any():
        return ()
    net.gen["slack"] = False
    machines = list(net.gen[net.gen.in_service.astype(bool)].itertuples())
    if not machines:
        message = "There is no generator or external injection to feed it; add one, or its SSH profile."
        raise Refused("The CGMES model, as pandapower reads it", [Finding("CGMES", "no_source", message)])
    ranked = [row for row in machines if cim.priorities.get(_key(str(row.origin_id)), 0) > 0]
    if ranked:
        chosen = min(ranked, key=lambda row: cim.priorities[_key(str(row.origin_id))])
        net.gen.loc[chosen.Index, "slack"] = True
        return ()
    at_reference = {i for i, key in net.bus.origin_id.items() if _key(str(key)) in cim.reference_nodes}
    there = [row for row in machines if row.bus in at_reference]
    chosen = max(there or machines, key=lambda row: (net.bus.vn_kv[row.bus], abs(row.p_mw), str(row.origin_id)))
    net.gen.loc[chosen.Index, "slack"] = True
    reason = "the solved state has its angle there" if there else "it has the highest voltage and is the largest there"
    message = f"No machine has a reference priority; it is the source, as {reason}. Write referencePriority."
    return (Finding(f"CGMES: {_label(chosen)}", "slack_chosen", message),)


def _label(row: Any) -> str:
    """The name of a row of pandapower's; its mRID where it has none."""
    return str(row.name) if isinstance(row.name, str) and row.name else _key(str(row.origin_id))


# ---------------------------------------------------------------- two opinions

_COMPARED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "bus": ("buses", ("vn_kv",)),
    "line": ("lines", ("r_ohm", "x_ohm", "c_nf", "i_max_a")),
    "transformer": ("transformers", ("sn_mva", "vn_hv_kv", "vn_lv_kv", "vk_percent", "vkr_percent", "tap_pos")),
    "load": ("loads", ("p_mw", "q_mvar")),
    "generator": ("generators", ("p_mw", "q_mvar", "vm_pu")),
    "source": ("sources", ("vm_pu",)),
    "shunt": ("shunts", ("p_mw", "q_mvar", "step")),
}


def _differences(one: GridTables, two: GridTables) -> Iterator[Finding]:
    opened = {switch.element for grid in (one, two) for switch in grid.switches if not switch.closed}
    for kind, (table, columns) in _COMPARED.items():
        first, second = ({_named(row): row for row in getattr(grid, table)} for grid in (one, two))
        # One reader keeps what is open at an end, the other takes it out of service.
        for name in sorted((first.keys() ^ second.keys()) - opened):
            reader = "pypowsybl" if name in first else "pandapower"
            yield Finding(f"CGMES: {kind} {name}", "one_reading", f"Only {reader} finds this {kind}; look it up.")
        for name in sorted(first.keys() & second.keys()):
            for column in columns:
                a, b = getattr(first[name], column), getattr(second[name], column)
                if not isclose(a, b, rel_tol=1e-6, abs_tol=1e-9):
                    message = f"{column} is {a:g} for pypowsybl and {b:g} for pandapower; look it up in the profiles."
                    yield Finding(f"CGMES: {kind} {name}", "readings_differ", message)


def _named(row: Any) -> str:
    """The name of a row: its first column."""
    return str(getattr(row, next(iter(row.__dataclass_fields__))))
