"""`coflex grid ...` on files as users have them: known answers, faults, and the shape of what is said."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from coflex.adapters.exchange.tables.records import write_records
from coflex.grid.estimate import Measurement, SensorKind
from coflex.grid.tables import Dispatch, GridTables, Shunt
from support.command import coflex
from support.small_grids import radial

GOLDEN = Path(__file__).parents[1] / "golden"


def grid(name: str) -> Path:
    return GOLDEN / name / f"{name}.m"


def say(command: str, *words: Any) -> Any:
    """The answer of a study, which must be one JSON object and nothing else."""
    told = coflex("grid", command, *words, "--json")
    assert told.exit_code == 0, told.stderr
    return json.loads(told.stdout)


@pytest.mark.spec("GRID-01", "GRID-02")
@pytest.mark.parametrize(
    ("name", "losses_kw", "lowest_pu", "bus"),
    [("case33bw", 202.677, 0.91309, "18"), ("case69", 224.992, 0.90919, "65")],
)
def test_published_losses_and_lowest_voltages_come_out(name: str, losses_kw: float, lowest_pu: float, bus: str) -> None:
    answer = say("powerflow", grid(name))
    assert answer["losses_kw"] == pytest.approx(losses_kw, abs=5e-4)
    assert answer["lowest_voltage_pu"] == pytest.approx(lowest_pu, abs=5e-6)
    assert answer["lowest_voltage_bus"] == bus
    # These files rate no branch; nothing is made up.
    assert answer["highest_loading"] is None
    assert {finding["code"] for finding in answer["findings"]} >= {"no_rating"}


@pytest.mark.spec("GRID-13")
def test_published_dc_dispatch_and_its_prices_come_out() -> None:
    answer = say("opf", grid("case5_pjm"))
    assert answer["objective"] == pytest.approx(17_479.9, abs=0.05) and answer["feasible"]
    published = {"1": 16.977, "2": 26.384, "3": 30.0, "4": 39.943, "5": 10.0}
    assert answer["prices"] == {bus: pytest.approx(price, abs=1e-3) for bus, price in published.items()}
    assert [one["limit"] for one in answer["binding"]] == ["loading branch 6"]


@pytest.mark.spec("MKT-06")
def test_published_ac_dispatch_comes_out() -> None:
    answer = say("opf", grid("case5_pjm"), "--model", "ac")
    assert answer["objective"] == pytest.approx(17_551.89, rel=1e-5)


@pytest.mark.spec("MKT-06")
def test_parts_of_a_nodal_price_add_up_to_it_and_grow_along_the_feeder() -> None:
    answer = say("dlmp", grid("case33bw"), "--price", 50)
    for bus in answer["buses"]:
        parts = sum(bus[part] for part in ("energy", "loss", "congestion", "voltage", "exchange"))
        assert parts == pytest.approx(bus["price"], abs=1e-9)
    price = {bus["bus"]: bus["price"] for bus in answer["buses"]}
    assert price["1"] == pytest.approx(50) and price["1"] < price["6"] < price["18"]


@pytest.mark.spec("GRID-10")
def test_an_area_holds_the_exchange_of_the_powers_as_given() -> None:
    now = say("powerflow", grid("case33bw"))
    answer = say("area", grid("case33bw"), "--directions", 8)
    (one,) = answer["areas"]
    assert answer["feasible"] and len(answer["corners"]) == 16
    assert one["p_min_mw"] < now["interface_p_mw"] <= one["p_max_mw"] + 1e-6
    # Without a dispatch table the rule that stands for it is said.
    assert "assumed_flexibility" in {finding["code"] for finding in answer["findings"]}


@pytest.mark.spec("GRID-06")
def test_a_light_says_what_may_be_called_and_what_is_in_the_way() -> None:
    answer = say("light", grid("case33bw"))
    assert answer["green"] + answer["yellow"] + answer["red"] == len(answer["lights"])
    assert 0 < answer["capability_kw"] <= answer["potential_kw"]


@pytest.mark.spec("GRID-07")
def test_perimeters_drawn_anew_never_let_less_through() -> None:
    own, *drawn = (say("light", grid("case33bw"), *words) for words in ((), *(("--perimeters", k) for k in (1, 4))))
    assert drawn[0]["potential_kw"] == pytest.approx(own["potential_kw"]) and own["perimeters"] == 1
    assert all(one["capability_kw"] >= own["capability_kw"] - 1 for one in drawn)
    assert drawn[1]["perimeters"] <= 4 and drawn[0]["capability_kw"] <= drawn[1]["capability_kw"] + 1
    assert {one["perimeter"] for one in drawn[1]["drawn"]} == {f"R0{k + 1}" for k in range(drawn[1]["perimeters"])}


@pytest.mark.spec("GRID-03")
def test_an_assessment_names_every_broken_limit(tmp_path: Path) -> None:
    text = grid("case33bw").read_text()
    tight = tmp_path / "tight.m"
    # The lower voltage limit of the last bus raised above what it has.
    answer = say("assess", grid("case33bw"))
    assert answer["broken"] == 0 and answer["nearest"] == "voltage_low 18"
    lines = text.splitlines()
    row = next(k for k, line in enumerate(lines) if line.split()[:1] == ["18"] and line.rstrip().endswith(";"))
    cells = lines[row].rstrip("; ").split()
    cells[-1] = "0.95"
    tight.write_text("\n".join([*lines[:row], "\t" + "\t".join(cells) + ";", *lines[row + 1 :]]))
    answer = say("assess", tight)
    assert [(one["element"], one["kind"]) for one in answer["violations"]] == [("18", "voltage_low")]
    assert answer["violations"][0]["excess"] == pytest.approx(0.95 - 0.91309, abs=1e-5)


@pytest.mark.spec("GRID-11")
def test_an_estimate_names_the_sensor_that_cannot_be_right(tmp_path: Path) -> None:
    state = say("powerflow", grid("case33bw"))
    vm = {bus["bus"]: bus["vm_pu"] for bus in state["buses"]}
    flow = {branch["branch"]: branch for branch in state["branches"]}
    readings = [Measurement(f"v{b}", SensorKind.VOLTAGE, b, "", vm[b], 0.001) for b in ("1", "6", "18", "25", "33")]
    readings += [
        Measurement("p1", SensorKind.ACTIVE, "branch 1", "from", flow["branch 1"]["p_from_mw"], 0.01),
        Measurement("v12", SensorKind.VOLTAGE, "12", "", vm["12"] + 0.05, 0.001),
    ]
    table = tmp_path / "sensors.csv"
    write_records(table, Measurement, readings)
    answer = say("estimate", grid("case33bw"), "--sensors", table)
    assert answer["bad"] == ["v12"]
    assert answer["lowest_voltage_pu"] == pytest.approx(0.91309, abs=2e-3)


@pytest.mark.spec("GRID-01")
def test_a_file_that_is_no_grid_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    broken = tmp_path / "broken.m"
    broken.write_text("function mpc = broken\nmpc.version = '2';\nmpc.bus = [1 3 0 0\n")
    for word in (broken, tmp_path / "nothing.m"):
        told = coflex("grid", "powerflow", word)
        assert told.exit_code == 1 and word.name in told.stderr and "\n  " in told.stderr


def test_tables_are_cut_for_people_and_never_for_programs() -> None:
    told = coflex("grid", "powerflow", grid("case33bw"), "--rows", 2)
    assert told.exit_code == 0 and "(the first 2 of 33)" in told.stdout
    assert len(say("powerflow", grid("case33bw"), "--rows", 2)["buses"]) == 33


def test_a_day_is_asked_of_a_grid_that_has_none() -> None:
    told = coflex("grid", "powerflow", grid("case33bw"), "--day", "2016-07-05")
    assert told.exit_code == 1 and "no profiles" in told.stderr


@pytest.mark.spec("GRID-02")
def test_a_load_on_one_phase_draws_down_that_phase_alone(tmp_path: Path) -> None:
    folder = tmp_path / "grid"
    folder.mkdir()
    (folder / "buses.csv").write_text(
        "bus,vn_kv,v_min_pu,v_max_pu,longitude,latitude,perimeter\nM,20,0.9,1.1,0,0,\nL,0.4,0.9,1.1,0,0,\nK,0.4,0.9,1.1,0,0,\n"
    )
    (folder / "lines.csv").write_text(
        "line,from_bus,to_bus,length_km,r_ohm,x_ohm,c_nf,i_max_a,loading_max_percent\nc,L,K,0.2,0.06,0.016,50,200,100\n"
    )
    (folder / "transformers.csv").write_text(
        "transformer,hv_bus,lv_bus,sn_mva,vn_hv_kv,vn_lv_kv,vk_percent,vkr_percent,pfe_kw,i0_percent,shift_degree,tap_side,"
        "tap_neutral,tap_min,tap_max,tap_step_percent,tap_pos,loading_max_percent,vector_group\n"
        "t,M,L,0.4,20,0.4,4,1.2,0.6,0.3,150,hv,0,-2,2,2.5,0,100,Dyn5\n"
    )
    (folder / "switches.csv").write_text("switch,kind,bus,element,closed\n")
    (folder / "sources.csv").write_text("source,bus,vm_pu\ns,M,1.0\n")
    (folder / "loads.csv").write_text("load,bus,p_mw,q_mvar,profile_p,profile_q,phase\nhouse,K,0.01,0.002,,,b\n")
    (folder / "generators.csv").write_text("generator,bus,p_mw,q_mvar,technology,profile\n")
    (folder / "storages.csv").write_text("storage,bus,p_rated_mw,energy_mwh,efficiency,soc_initial\n")
    answer = say("powerflow", folder, "--three-phase")
    (end,) = [bus for bus in answer["buses"] if bus["bus"] == "K"]
    assert end["b_pu"] < min(end["a_pu"], end["c_pu"]) - 0.005 and answer["highest_unbalance_bus"] == "K"
    (cable,) = [branch for branch in answer["branches"] if branch["branch"] == "c"]
    assert cable["neutral"] == pytest.approx(cable["b"], rel=1e-3) and cable["a"] < 0.01
    # A tenth of a MVA on three phases is 10.2 kVA on one: 44 A at 0.23 kV, of 200 A.
    assert cable["b"] == pytest.approx(10.2 / 0.23 / end["b_pu"] / 200, rel=0.01)


def small(folder: Path, **changed: Any) -> Path:
    """The small radial grid as a folder of tables, some of them changed."""
    folder.mkdir()
    tables = replace(radial(), **changed)
    for field in fields(GridTables):
        rows = getattr(tables, field.name)
        kind = get_args(get_type_hints(GridTables)[field.name])[0]
        if rows or field.name in ("switches", "storages", "generators"):
            write_records(folder / f"{field.name}.csv", kind, rows)
    return folder


@pytest.mark.spec("GRID-02")
def test_what_a_shunt_withdraws_is_no_loss(tmp_path: Path) -> None:
    plain = say("powerflow", small(tmp_path / "plain"))
    earthed = say("powerflow", small(tmp_path / "earthed", shunts=(Shunt("s", "M0", 2.0, 0.0, 1, 1),)))
    assert earthed["interface_p_mw"] > plain["interface_p_mw"] + 1.8
    assert earthed["losses_kw"] < plain["losses_kw"] + 50
    assert earthed["losses_kw"] == pytest.approx(sum(branch["losses_kw"] for branch in earthed["branches"]))


@pytest.mark.spec("GRID-13")
def test_demand_beyond_all_capacity_names_what_is_uncovered_and_what_is_exhausted(tmp_path: Path) -> None:
    weak = Dispatch("above", 0.0, 1.0, -9.0, 9.0, 0.0, 40.0, 0.0)
    answer = say("opf", small(tmp_path / "grid", dispatches=(weak,)))
    assert not answer["feasible"]
    # Loads of 6.9 MW, generators of 2.5 MW that stand as they are, and one MW from above.
    assert sum(one["p_mw"] for one in answer["uncovered"]) == pytest.approx(6.9 - 2.5 - 1.0)
    assert answer["exhausted"] == [{"element": "above", "limit": "p_max", "p_mw": 1.0}]


@pytest.mark.spec("GRID-10")
def test_reactive_range_alone_makes_an_area(tmp_path: Path) -> None:
    bank = Dispatch("pv A3", 1.0, 1.0, -0.5, 0.5, 0.0, 0.0, 0.0)
    (one,) = say("area", small(tmp_path / "grid", dispatches=(bank,)), "--directions", 8)["areas"]
    assert one["q_max_mvar"] - one["q_min_mvar"] == pytest.approx(1.0, rel=0.1)


@pytest.mark.spec("GRID-01")
def test_a_load_in_kw_where_mw_belong_is_named_when_the_power_flow_fails(tmp_path: Path) -> None:
    loads = tuple(replace(row, p_mw=1000 * row.p_mw, q_mvar=1000 * row.q_mvar) for row in radial().loads)
    told = coflex("grid", "powerflow", small(tmp_path / "grid", loads=loads))
    assert told.exit_code == 1 and "no solution" in told.stderr and "kW" in told.stderr


def test_a_price_that_is_no_number_and_a_grid_without_choices_are_refused(tmp_path: Path) -> None:
    assert coflex("grid", "dlmp", grid("case33bw"), "--price", "nan").exit_code == 2
    still = replace(radial().loads[0], p_mw=0.0, q_mvar=0.0)
    told = coflex("grid", "area", small(tmp_path / "grid", loads=(still,), generators=(), storages=()))
    assert told.exit_code == 1 and "Nothing in the grid may be called." in told.stderr
