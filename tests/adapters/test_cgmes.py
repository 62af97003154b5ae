"""CGMES models as tables, against the load flow of PowSyBl and the nets they were written from.

COFLEX_CGMES may name a folder with further models (zip files): each is then read and solved too.
"""

from __future__ import annotations

import logging
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandapower as pp
import pandapower.networks as nw
import pytest

from coflex.adapters.grids import cgmes, powsybl_net
from coflex.adapters.grids.cgmes import compare, read_by_pandapower, read_cgmes
from coflex.domain.errors import CoflexError, Refused
from coflex.grid.tables import GridTables
from support.foreign import apart, pandapower_voltages, solved

pn = pytest.importorskip("pypowsybl.network")
lf = pytest.importorskip("pypowsybl.loadflow")

MODELS = sorted(Path(os.environ["COFLEX_CGMES"]).glob("*.zip")) if "COFLEX_CGMES" in os.environ else []


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Both readers report every triple they look at."""
    logging.disable(logging.WARNING)


def feeder() -> Any:
    """A net of our own: a transformer with a tap changer, five lines, loads, a held voltage, an open ring."""
    # PowSyBl converts no-load currents rightly where the base of the net is the transformer's power.
    net = pp.create_empty_network(f_hz=50.0, sn_mva=25.0)
    kv = (110.0, *[20.0] * 5)
    buses = [pp.create_bus(net, v, name=f"bus {i}", min_vm_pu=0.9, max_vm_pu=1.1) for i, v in enumerate(kv)]
    pp.create_ext_grid(net, buses[0], vm_pu=1.03, name="above")
    pp.create_transformer(net, buses[0], buses[1], "25 MVA 110/20 kV", name="T", tap_pos=-3, tap_changer_type="Ratio")
    net.trafo["shift_degree"] = 0.0
    for k, (a, b) in enumerate(((1, 2), (2, 3), (1, 4), (4, 5), (5, 3))):
        pp.create_line(net, buses[a], buses[b], 2.0 + k, "NA2XS2Y 1x150 RM/25 12/20 kV", name=f"line {a}-{b}")
    pp.create_switch(net, buses[3], 4, "l", closed=False)
    for k, bus in enumerate(buses[2:]):
        pp.create_load(net, bus, 0.8 + 0.2 * k, 0.3, name=f"load {k}")
    limits = {"min_p_mw": 0.0, "max_p_mw": 3.0, "min_q_mvar": -2.0, "max_q_mvar": 2.0}
    pp.create_gen(net, buses[5], 1.2, vm_pu=1.02, name="plant", **limits)
    pp.create_shunt(net, buses[4], q_mvar=-0.4, name="bank")
    return net


def written(net: Any, path: Path) -> Path:
    """The net as a CGMES model with its solved state, by PowSyBl, whose converter leaves out switches at lines."""
    network = pn.convert_from_pandapower(net)
    names = {row["name"]: key for key, row in network.get_lines().iterrows()}
    for switch in net.switch[(net.switch.et == "l") & ~net.switch.closed].itertuples():
        line = net.line.loc[switch.element]
        end = "connected1" if line.from_bus == switch.bus else "connected2"
        network.update_lines(id=names[line["name"]], **{end: False})
    lf.run_ac(network, lf.Parameters(distributed_slack=False, write_slack_bus=True))
    network.save(str(path), format="CGMES")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logging.disable(logging.WARNING)
    return written(feeder(), tmp_path_factory.mktemp("cgmes") / "feeder.zip")


def edited(model: Path, to: Path, change: Callable[[str, str], str]) -> Path:
    """The model with `change(name, text)` applied to each of its profiles."""
    with zipfile.ZipFile(model) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name).decode()))
    return to


def powsybl_voltages(network: Any, tables: GridTables, split: bool = True) -> dict[str, complex]:
    """Complex voltage in pu of each bus by our name, by PowSyBl's load flow from the same source."""
    buses = network.get_bus_breaker_view_buses(all_attributes=True)
    names = {row.id: row.name or row.id for row in buses.reset_index().itertuples()}
    assert len(set(names.values())) == len(names)
    source = next(key for key, name in names.items() if name == tables.sources[0].bus)
    parameters = lf.Parameters(
        distributed_slack=False,
        use_reactive_limits=False,
        twt_split_shunt_admittance=split,
        transformer_voltage_control_on=False,
        shunt_compensator_voltage_control_on=False,
        phase_shifter_regulation_on=False,
        read_slack_bus=False,
        voltage_init_mode=lf.VoltageInitMode.DC_VALUES,
        provider_parameters={
            "slackBusSelectionMode": "NAME",
            "slackBusesIds": buses.bus_id[source],
            "newtonRaphsonStoppingCriteriaType": "UNIFORM_CRITERIA",
            "newtonRaphsonConvEpsPerEq": "1e-10",
            "voltageRemoteControl": "false",
            "plausibleActivePowerLimit": "1e9",
            "lowImpedanceThreshold": "1e-12",
        },
    )
    assert lf.run_ac(network, parameters)[0].status == lf.ComponentStatus.CONVERGED
    solved_buses = network.get_bus_breaker_view_buses(all_attributes=True)
    volts = solved_buses.v_mag / network.get_voltage_levels().nominal_v.loc[solved_buses.voltage_level_id].to_numpy()
    turned = np.exp(1j * np.radians(solved_buses.v_angle - solved_buses.v_angle[source]))
    return {names[key]: complex(volts[key] * turned[key]) for key in names if volts[key] == volts[key]}


# ---------------------------------------------------------------- the first reading


@pytest.mark.spec("GRID-01")
def test_a_model_written_from_a_net_has_the_voltages_of_the_net(model: Path) -> None:
    tables, _ = read_cgmes(model)
    net = feeder()
    theirs = pandapower_voltages(net)
    # PowSyBl's writer puts the whole no-load admittance of a transformer at one end, pandapower half at each.
    assert apart(tables, theirs) < 2e-5
    net.trafo[["i0_percent", "pfe_kw"]] = 0.0
    without = replace(tables.transformers[0], i0_percent=0.0, pfe_kw=0.0)
    assert apart(replace(tables, transformers=(without,)), pandapower_voltages(net)) < 1e-8


@pytest.mark.spec("GRID-01")
def test_powsybl_finds_the_same_voltages_on_the_same_model(model: Path) -> None:
    tables, _ = read_cgmes(model)
    assert apart(tables, powsybl_voltages(pn.load(str(model)), tables)) < 1e-8


NETWORKS = [
    *("create_micro_grid_be_network", "create_micro_grid_nl_network", "create_ieee9", "create_ieee14"),
    *("create_ieee57", "create_ieee118", "create_eurostag_tutorial_example1_network"),
]


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize("name", NETWORKS)
def test_powsybl_finds_the_same_voltages_on_its_own_networks(name: str) -> None:
    # The conformity grid has a phase shifter, three windings, tap changers on either side, boundary lines, shunts.
    network = getattr(pn, name)()
    tables, _ = powsybl_net.tables_of(network)
    theirs = powsybl_voltages(network, tables)
    assert len(theirs) == len(network.get_bus_breaker_view_buses())
    assert apart(tables, theirs) < 1e-8


@pytest.mark.spec("GRID-01")
def test_unsplit_admittances_of_transformers_are_a_model_apart() -> None:
    network = pn.create_micro_grid_be_network()
    tables, _ = powsybl_net.tables_of(network)
    assert 1e-6 < apart(tables, powsybl_voltages(network, tables, split=False)) < 2e-4


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_given_models_have_the_voltages_that_powsybl_finds(file: Path) -> None:
    tables, _ = read_cgmes(file)
    assert apart(tables, powsybl_voltages(pn.load(str(file)), tables)) < 1e-7


@pytest.mark.spec("GRID-01")
def test_devices_keep_their_names_their_limits_and_their_range(model: Path) -> None:
    tables, notes = read_cgmes(model)
    net = feeder()
    assert {bus.bus for bus in tables.buses} == set(net.bus.name)
    assert {load.load for load in tables.loads} == set(net.load.name)
    assert {line.line: line.i_max_a for line in tables.lines} == {
        row.name: pytest.approx(row.max_i_ka * 1000) for row in net.line.itertuples()
    }
    transformer = tables.transformers[0]
    assert (transformer.hv_bus, transformer.lv_bus) == ("bus 0", "bus 1")
    assert transformer.vn_lv_kv == net.trafo.vn_lv_kv[0]
    limits = next(row for row in tables.dispatches if row.element == tables.generators[0].generator)
    assert (limits.p_min_mw, limits.p_max_mw, limits.q_min_mvar, limits.q_max_mvar) == (0.0, 3.0, -2.0, 2.0)
    assert tables.generators[0].vm_pu == pytest.approx(1.02)
    assert {bus.perimeter for bus in tables.buses if bus.bus in ("bus 0", "bus 1")} == {""}
    # Written after a load flow of one slack, the state lacks power there, which must not become a load.
    assert {note.code for note in notes} == {"slack_chosen", "limits_assumed", "state_unbalanced"}
    # The ring stands open where the net has it open.
    assert [(s.kind, s.element, s.bus, s.closed) for s in tables.switches] == [("line", "line 5-3", "bus 3", False)]


@pytest.mark.spec("GRID-01")
def test_tap_changers_move_on_either_side_where_their_steps_are_even() -> None:
    network = pn.create_micro_grid_be_network()
    tables, notes = powsybl_net.tables_of(network)
    taps = {t.transformer: (t.tap_side, t.tap_neutral, t.tap_min, t.tap_max, t.tap_pos) for t in tables.transformers}
    assert taps["BE-TR2_2"] == ("hv", 13, 1, 25, 10)
    assert taps["BE-TR2_3"][0] == "lv" and taps["BE-TR2_3"][2:] == (1, 33, 14)
    assert [note.place for note in notes if note.code == "tap_fixed"] == ["CGMES: BE-TR2_1"]
    # Moved by us and by PowSyBl, they do the same.
    for name in ("BE-TR2_2", "BE-TR2_3"):
        key = next(i for i, row in network.get_2_windings_transformers().iterrows() if row["name"] == name)
        network.update_ratio_tap_changers(id=key, tap=20)
        moved = tuple(replace(t, tap_pos=20) if t.transformer == name else t for t in tables.transformers)
        tables = replace(tables, transformers=moved)
        assert apart(tables, powsybl_voltages(network, tables)) < 1e-8


@pytest.mark.spec("GRID-01")
def test_devices_are_called_by_mrid_if_wanted(model: Path) -> None:
    tables, _ = read_cgmes(model, keys="mrid")
    network = pn.load(str(model))
    assert {line.line for line in tables.lines} == set(network.get_lines().index)
    loads = network.get_loads()
    assert {load.load for load in tables.loads} == set(loads.index[loads.type != "FICTITIOUS"])
    named, _ = read_cgmes(model)
    assert solved(named)[1].losses_mw == pytest.approx(solved(tables)[1].losses_mw, rel=1e-12)


def test_two_devices_of_one_name_are_called_by_mrid(model: Path, tmp_path: Path) -> None:
    twice = edited(model, tmp_path / "twice.zip", lambda _, text: text.replace(">load 1<", ">load 0<"))
    names = {load.load for load in read_cgmes(twice)[0].loads}
    assert {"load 2", "load 3"} < names and "load 0" not in names and len(names) == 4


# ---------------------------------------------------------------- the source


def ranked(model: Path, to: Path, machine: str, priority: int) -> Path:
    """The model with a reference priority for one machine."""
    network = pn.load(str(model))
    key = next(i for i, row in network.get_generators().iterrows() if row["name"] == machine)

    def change(name: str, text: str) -> str:
        pattern = rf'(<cim:SynchronousMachine rdf:about="#_{re.escape(key)}">.*?referencePriority>)\d+'
        return re.sub(pattern, rf"\g<1>{priority}", text, count=1, flags=re.S) if "SSH" in name else text

    return edited(model, to, change)


@pytest.mark.spec("GRID-01")
def test_the_source_is_the_machine_of_the_highest_priority(model: Path, tmp_path: Path) -> None:
    tables, notes = read_cgmes(model)
    assert tables.sources[0].bus == "bus 0"
    # The solved state has its angle there, and the note says so.
    assert "its angle" in next(note.message for note in notes if note.code == "slack_chosen")
    plant = next(unit.generator for unit in tables.generators)
    both = ranked(ranked(model, tmp_path / "one.zip", tables.sources[0].source, 2), tmp_path / "both.zip", plant, 1)
    for read in (read_cgmes, read_by_pandapower):
        first, notes = read(both)
        assert first.sources[0].bus == "bus 5"
        assert "slack_chosen" not in {note.code for note in notes}


def test_without_a_word_the_source_is_at_the_highest_voltage(model: Path, tmp_path: Path) -> None:
    def unsolved(name: str, text: str) -> str:
        return text.replace("AngleRefTopologicalNode", "OtherTopologicalNode") if "SV" in name else text

    tables, notes = read_cgmes(edited(model, tmp_path / "unsolved.zip", unsolved))
    assert tables.sources[0].bus == "bus 0"
    assert "highest voltage" in next(note.message for note in notes if note.code == "slack_chosen")


# ---------------------------------------------------------------- files


@pytest.mark.spec("GRID-01")
def test_a_folder_and_a_list_of_files_are_the_model(model: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(model) as archive:
        archive.extractall(tmp_path / "folder")
    expected = read_cgmes(model)
    assert read_cgmes(tmp_path / "folder") == expected
    assert read_cgmes(sorted((tmp_path / "folder").iterdir())) == expected
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
        outer.write(model, "inner.zip")
    assert read_cgmes(tmp_path / "outer.zip") == expected


@pytest.mark.parametrize(
    ("name", "content"), [("a.zip", b"no zip"), ("a.xml", b"<no cim"), ("a.xml", b"<a/>"), ("a.txt", b"")]
)
def test_what_is_no_model_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CoflexError):
        read_cgmes(tmp_path)


# ---------------------------------------------------------------- refusals


@pytest.mark.spec("GRID-01")
def test_direct_current_is_refused_by_name() -> None:
    with pytest.raises(Refused) as refused:
        powsybl_net.tables_of(pn.create_four_substations_node_breaker_network())
    assert {(f.place, f.code) for f in refused.value.findings} == {
        (f"CGMES: {name}", "not_converted") for name in ("LCC1", "LCC2", "VSC1", "VSC2")
    }


@pytest.mark.spec("GRID-01")
def test_a_missing_power_is_named_in_the_first_and_refused_in_the_second_reading(model: Path, tmp_path: Path) -> None:
    def silent(name: str, text: str) -> str:
        pattern = r"<cim:EnergyConsumer.p>[^<]*</cim:EnergyConsumer.p>"
        return re.sub(pattern, "", text, count=1) if "SSH" in name else text

    spoiled = edited(model, tmp_path / "silent.zip", silent)
    silent_ones = [note.place for note in read_cgmes(spoiled)[1] if note.code == "power_not_given"]
    with pytest.raises(Refused) as refused:
        read_by_pandapower(spoiled)
    assert {f.code for f in refused.value.findings} == {"not_a_number"}
    assert silent_ones == [f.place for f in refused.value.findings] == ["CGMES: load 0"]


# ---------------------------------------------------------------- the second reading


@pytest.mark.spec("GRID-01")
def test_the_second_reading_finds_the_same_state(tmp_path: Path) -> None:
    net = nw.case33bw()
    file = written(net, tmp_path / "feeder.zip")
    one, two = read_cgmes(file)[0], read_by_pandapower(file)[0]
    assert 1000 * solved(one)[1].losses_mw[0] == pytest.approx(202.677, abs=5e-4)
    assert 1000 * solved(two)[1].losses_mw[0] == pytest.approx(202.677, abs=5e-4)
    assert compare(file) == ()


@pytest.mark.spec("GRID-01")
def test_the_second_reading_stands_in_when_the_first_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(nw.case33bw(), tmp_path / "feeder.zip")

    def refuses(cim: Any) -> Any:
        raise RuntimeError("Unsupported file format")

    monkeypatch.setattr(cgmes, "_network", refuses)
    tables, notes = read_cgmes(file)
    assert 1000 * solved(tables)[1].losses_mw[0] == pytest.approx(202.677, abs=5e-4)
    assert "Unsupported file format" in next(note.message for note in notes if note.code == "second_reading")
    assert [finding.code for finding in compare(file)] == ["one_reading"]


@pytest.mark.spec("GRID-01")
def test_readings_that_differ_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(nw.case33bw(), tmp_path / "feeder.zip")
    true = cgmes._by_pandapower

    def elsewhere(cim: Any, keys: Any) -> Any:
        tables, notes = true(cim, keys)
        loads = (replace(tables.loads[0], p_mw=9.0), *tables.loads[1:])
        return replace(tables, loads=loads, lines=tables.lines[1:]), notes

    monkeypatch.setattr(cgmes, "_by_pandapower", elsewhere)
    found = {(finding.place.split()[1], finding.code) for finding in compare(file)}
    assert found == {("load", "readings_differ"), ("line", "one_reading")}
    assert astuple(compare(file)[0])[2].endswith("look it up.") or "profiles" in compare(file)[0].message
