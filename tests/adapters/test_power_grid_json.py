"""power-grid-model's files: its own power flow on the file finds what ours finds on the tables read from it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from power_grid_model import CalculationMethod, PowerGridModel
from power_grid_model.utils import json_deserialize, json_serialize

from coflex.adapters.grids.power_grid_json import parse_power_grid_json, read_power_grid_json
from coflex.domain.errors import Refused
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.grid.injection import element_powers, node_injections
from coflex.grid.network import build
from coflex.grid.powerflow import solve
from coflex.grid.tables import GridTables

CLOSED = {"from_status": 1, "to_status": 1}
LINE = {"r1": 1.3, "x1": 0.9, "c1": 8e-7, "tan1": 0.0, "r0": 4.0, "x0": 3.0, "c0": 4e-7, "tan0": 0.0, "i_n": 300.0}
TRANSFORMER = {
    "u1": 1.12e5,
    "u2": 2.1e4,
    "sn": 4e7,
    "uk": 0.12,
    "pk": 1.4e5,
    "i0": 0.004,
    "p0": 2.6e4,
    "winding_from": 1,
    "winding_to": 2,
    "clock": 5,
    "tap_side": 0,
    "tap_pos": 3,
    "tap_min": -9,
    "tap_max": 9,
    "tap_nom": 0,
    "tap_size": 1.68e3,
}
STAR = {
    "u1": 1.1e5,
    "u2": 2.05e4,
    "u3": 1.05e4,
    "sn_1": 6e7,
    "sn_2": 4e7,
    "sn_3": 2e7,
    "i0": 0.003,
    "p0": 4e4,
    "uk_12": 0.14,
    "uk_13": 0.12,
    "uk_23": 0.05,
    "pk_12": 1.5e5,
    "pk_13": 6e4,
    "pk_23": 4e4,
    "winding_1": 1,
    "winding_2": 1,
    "winding_3": 2,
    "clock_12": 6,
    "clock_13": 11,
    "tap_side": 0,
    "tap_pos": -2,
    "tap_min": -8,
    "tap_max": 8,
    "tap_nom": 1,
    "tap_size": 1.3e3,
    "uk_12_min": 0.13,
    "uk_12_max": 0.16,
    "pk_13_max": 7e4,
}


def between(id: int, a: int, b: int, **values: float) -> dict[str, Any]:
    return {"id": id, "from_node": a, "to_node": b} | CLOSED | values


def power(id: int, node: int, p: Any, q: Any, status: int = 1, type: int = 0) -> dict[str, Any]:
    return {"id": id, "node": node, "status": status, "type": type, "p_specified": p, "q_specified": q}


def everything() -> dict[str, list[dict[str, Any]]]:
    """A grid with every component that is read. Taps stand off their middle, ends are open, a line has losses to
    earth, a transformer counts its taps downwards."""
    kv = {1: 110, 2: 20, 3: 20, 4: 20, 5: 20, 6: 10, 7: 0.4, 8: 20, 9: 110, 10: 10, 11: 20}
    downwards = TRANSFORMER | {"tap_side": 1, "tap_pos": 4, "tap_min": 5, "tap_max": -5, "tap_nom": 1, "tap_size": 2.5}
    small = downwards | {"u1": 2e4, "u2": 400.0, "sn": 6.3e5, "uk": 0.05, "pk": 6e3, "p0": 900.0, "winding_from": 2}
    return {
        "node": [{"id": n, "u_rated": 1e3 * v} for n, v in kv.items()],
        "line": [
            between(20, 2, 3, **LINE),
            between(21, 3, 4, **LINE | {"tan1": 0.02}),
            between(22, 4, 8, **LINE | {"to_status": 0}),
            between(23, 8, 11, **LINE),
            between(24, 1, 9, **LINE | {"x1": -4.0, "i_n": float("inf")}),
        ],
        "link": [between(25, 4, 5), between(26, 5, 2, to_status=0)],
        "generic_branch": [
            between(27, 2, 6, r1=0.05, x1=0.9, g1=1e-6, b1=-4e-6, k=1.04, theta=0.1, sn=1e7),
            between(28, 3, 11, r1=0.8, x1=0.6, g1=0.0, b1=0.0),
        ],
        "transformer": [
            between(30, 1, 2, **TRANSFORMER, uk_min=0.1, uk_max=0.15, pk_min=1.2e5, pk_max=1.6e5),
            between(31, 4, 7, **small | {"winding_to": 1}),
        ],
        "three_winding_transformer": [
            {"id": 32, "node_1": 9, "node_2": 8, "node_3": 10, "status_1": 1, "status_2": 1, "status_3": 1} | STAR
        ],
        "shunt": [
            {"id": 40, "node": 3, "status": 1, "g1": 1e-5, "b1": 2e-3},
            {"id": 41, "node": 4, "status": 0, "g1": 0.0, "b1": 5.0},
        ],
        "source": [
            {"id": 50, "node": 1, "status": 1, "u_ref": 1.03, "sk": 3e9, "rx_ratio": 0.2},
            {"id": 51, "node": 9, "status": 1, "u_ref": 1.03},
            {"id": 52, "node": 6, "status": 0, "u_ref": 0.98, "sk": 1e9},
        ],
        "sym_load": [
            power(60, 3, 2.2e6, 0.5e6),
            power(61, 6, 1.5e6, 0.6e6),
            power(62, 4, 1e9, 1e9, status=0),
            power(63, 11, 1.1e6, 0.2e6, type=1),
        ],
        "asym_load": [power(64, 7, [4e4, 9e4, 2e4], [1e4, 3e4, 0.0])],
        "sym_gen": [power(70, 10, 2e6, -0.3e6), power(71, 8, 3e5, 1e5, type=1)],
        "asym_gen": [power(72, 7, [0.0, 5e3, 0.0], [0.0, 1e3, 0.0])],
    }


def text_of(data: dict[str, list[dict[str, Any]]]) -> str:
    """As people and programs write it: infinity as a word."""
    rows = {
        kind: [{k: "inf" if v == float("inf") else v for k, v in row.items()} for row in some]
        for kind, some in data.items()
    }
    return json.dumps({"version": "1.0", "type": "input", "is_batch": False, "attributes": {}, "data": rows})


def ours(tables: GridTables) -> dict[str, complex]:
    network = build(tables)
    empty = Series((), Axis(datetime(2016, 1, 1, tzinfo=UTC), 1), np.zeros((0, 1)))
    p, q = (node_injections(network, x) for x in element_powers(tables, empty))
    state = solve(network, p, q)
    return {bus.bus: complex(state.u[0, network.node_of(bus.bus)]) for bus in tables.buses}


def theirs(text: str) -> dict[str, complex]:
    model = PowerGridModel(json_deserialize(text))
    found = model.calculate_power_flow(
        calculation_method=CalculationMethod.newton_raphson, error_tolerance=1e-9, max_iterations=40
    )["node"]
    return {
        str(n): u * np.exp(1j * a)
        for n, u, a in zip(found["id"].tolist(), found["u_pu"], found["u_angle"], strict=True)
    }


def apart(text: str, tables: GridTables) -> float:
    """The largest distance of two voltages in pu, both turned to the same angle at node 1."""
    mine, other = ours(tables), theirs(text)
    turn = mine["1"] / abs(mine["1"]) * abs(other["1"]) / other["1"]
    return max(abs(mine[node] - u * turn) for node, u in other.items())


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize("compact", [False, True])
def test_power_grid_model_finds_the_same_voltages_on_its_own_file(compact: bool, tmp_path: Path) -> None:
    # A link is an ideal switch here and a large admittance there, 0.7e-6 pu a MVA; nothing flows over the one here.
    text = json_serialize(json_deserialize(text_of(everything())), use_compact_list=compact)
    assert (text.count('"p_specified"') == 4) == compact
    path = tmp_path / "grid.json"
    path.write_text(text, encoding="utf-8")
    tables, _ = read_power_grid_json(path)
    assert apart(text, tables) < 1e-8


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize(
    ("kind", "index", "change"),
    [
        ("transformer", 0, {"tap_side": 1, "tap_size": 300.0}),
        ("transformer", 0, {"tap_pos": 20}),
        ("transformer", 0, {"clock": 7}),
        ("transformer", 1, {"tap_pos": -3}),
        ("three_winding_transformer", 0, {"tap_side": 1, "tap_size": 250.0}),
        ("three_winding_transformer", 0, {"tap_side": 2, "tap_size": 120.0, "tap_min": 8, "tap_max": -8}),
        ("three_winding_transformer", 0, {"status_3": 0}),
        ("line", 1, {"from_status": 0}),
        ("generic_branch", 1, {"from_status": 0}),
        ("source", 0, {"sk": 2e8, "rx_ratio": 1.5}),
        ("source", 1, {"status": 0}),
    ],
)
def test_each_change_of_a_component_is_followed(kind: str, index: int, change: dict[str, Any]) -> None:
    data = everything()
    if change.get("status_3") == 0:
        data["sym_gen"] = [row for row in data["sym_gen"] if row["node"] != 10]
        data["node"] = [row for row in data["node"] if row["id"] != 10] + [{"id": 12, "u_rated": 1e4}]
        data["three_winding_transformer"][0]["node_3"] = 12
        data["link"].append(between(29, 12, 6))
    if kind == "line":
        data["generic_branch"].append(between(33, 2, 4, r1=0.3, x1=0.4, g1=0.0, b1=0.0))
    before = theirs(text_of(data))
    data[kind][index] |= change
    text = text_of(data)
    after = theirs(text)
    assert max(abs(after[node] - before[node]) for node in before) > 1e-5, "the change must matter"
    tables, _ = parse_power_grid_json(text, "grid.json")
    assert apart(text, tables) < 1e-8


@pytest.mark.spec("GRID-01")
def test_elements_are_named_by_their_ids_and_keep_what_they_are() -> None:
    tables, remarks = parse_power_grid_json(text_of(everything()), "grid.json")
    assert [line.line for line in tables.lines] == ["line 20", "line 22", "line 23"]
    assert tables.lines[0].r0_ohm == 4.0 and tables.lines[0].c_nf == pytest.approx(800.0)
    assert tables.lines[0].i_max_a == 300.0
    assert {b.branch for b in tables.branches} >= {"line 21", "line 24", "branch 27", "transformer 32 winding 3"}
    assert next(b.rating_mva for b in tables.branches if b.branch == "line 24") == 0.0
    transformer = tables.transformers[1]
    assert (transformer.vector_group, transformer.tap_min, transformer.tap_max) == ("Dyn5", -5, 5)
    loads = {load.load: (load.bus, load.p_mw, load.phase) for load in tables.loads}
    assert loads["load 64 b"] == ("7", 0.09, "b") and "load 62" not in loads
    assert [(s.source, s.vm_pu) for s in tables.sources] == [("source 50", 1.03), ("source 51", 1.03)]
    assert next(bus.vn_kv for bus in tables.buses if bus.bus == "7") == 0.4
    assert {remark.code for remark in remarks} == {"voltage_limits_assumed", "impedance_at_one_tap"}


@pytest.mark.spec("GRID-01")
def test_every_fault_is_named_at_once_with_its_component_and_id() -> None:
    data = everything()
    del data["line"][0]["x1"]
    data["line"][1]["from_node"] = 99
    data["shunt"][0]["g1"] = "much"
    data["sym_load"][0]["id"] = 61
    data["asym_load"][0]["p_specified"] = 3.0
    data["asym_line"] = [{"id": 90}]
    data["fault"] = [{"id": 91}]
    with pytest.raises(Refused) as refused:
        parse_power_grid_json(text_of(data), "grid.json")
    found = {(finding.place, finding.code) for finding in refused.value.findings}
    assert found == {
        ("grid.json, line 20", "missing_value"),
        ("grid.json, line 21", "unknown_bus"),
        ("grid.json, shunt 40", "not_a_number"),
        ("grid.json, sym_load 61", "named_twice"),
        ("grid.json, asym_load 64", "not_a_number"),
        ("grid.json, asym_line", "component_not_read"),
    }


@pytest.mark.spec("GRID-01")
def test_what_would_be_another_grid_is_refused_by_name() -> None:
    data = everything()
    data["sym_load"][0]["type"] = 2
    data["source"][1]["u_ref_angle"] = 0.1
    data["line"][0]["to_node"] = 6
    data["transformer"][0]["uk"] = -0.1
    data["asym_load"][0]["type"] = 1
    data["transformer"][1]["tap_side"] = 2
    data["three_winding_transformer"][0]["sn_2"] = 0
    with pytest.raises(Refused) as refused:
        parse_power_grid_json(text_of(data), "grid.json")
    assert {(finding.place, finding.code) for finding in refused.value.findings} == {
        ("grid.json, sym_load 60", "law_not_read"),
        ("grid.json, asym_load 64", "law_not_read"),
        ("grid.json, source", "several_sources"),
        ("grid.json, line 20", "voltages_joined"),
        ("grid.json, transformer 30", "impossible_value"),
        ("grid.json, transformer 31", "unknown_value"),
        ("grid.json, three_winding_transformer 32", "impossible_value"),
    }


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "not_json"),
        ("[]", "not_a_dataset"),
        ('{"version": "1.0", "type": "input", "data": {"node": [{}], "line": 3}}', "not_a_dataset"),
        ('{"version": "1.0", "type": "input", "attributes": 3, "data": {"node": [{}]}}', "not_a_dataset"),
        ('{"version": "1.0", "type": "input", "data": {"node": [{"id": 1, "u_rated": 0}]}}', "impossible_value"),
        ('{"version": "2.0", "type": "input", "data": {"node": [{}]}}', "unknown_version"),
        ('{"version": "1.0", "type": "update", "is_batch": true, "data": []}', "not_an_input"),
        ('{"version": "1.0", "type": "input", "data": {}}', "missing_table"),
        ('{"version": "1.0", "type": "input", "data": {"node": [[1, 2]]}}', "wrong_cell_count"),
        ('{"version": "1.0", "type": "input", "data": {"node": [{"u_rated": 400}]}}', "missing_value"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_a_reason(text: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_power_grid_json(text, "grid.json")
    assert [finding.code for finding in refused.value.findings] == [code]
