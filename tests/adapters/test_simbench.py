"""The SimBench reader against pandapower's own net and SimBench's own absolute profiles."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import networkx as nx
import numpy as np
import pandapower.topology as topology
import pytest
import simbench

from coflex.adapters.grids.simbench import YEAR, SimbenchGrid, load_grid, read_simbench
from coflex.domain.errors import CoflexError, Refused
from coflex.domain.time import local_label
from coflex.simulation.cases import scaled
from support.simbench_grids import net_of

CODE = "1-MV-urban--0-sw"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grids")


@pytest.fixture(scope="module")
def converted(cache: Path) -> SimbenchGrid:
    return load_grid(CODE, cache)


@pytest.fixture(scope="module")
def net(grids: Path) -> Any:
    return net_of(CODE, grids)


@pytest.mark.spec("GRID-01")
def test_every_device_of_the_grid_is_converted_under_its_name(converted: SimbenchGrid, net: Any) -> None:
    grid = converted.grid
    assert len(grid.buses) == 144 and len(grid.lines) == 147 and len(grid.switches) == 305
    assert [bus.bus for bus in grid.buses] == list(net.bus.name)
    assert [line.line for line in grid.lines] == list(net.line.name)
    assert [load.load for load in grid.loads] == list(net.load.name)
    assert [item.generator for item in grid.generators] == list(net.sgen.name)
    assert [item.transformer for item in grid.transformers] == list(net.trafo.name)
    assert [source.source for source in grid.sources] == list(net.ext_grid.name)
    assert {item.technology for item in grid.generators} == {"pv", "hydro"}
    assert grid.storages == ()


@pytest.mark.spec("GRID-01")
def test_lines_and_transformers_carry_the_values_of_the_whole_device(converted: SimbenchGrid, net: Any) -> None:
    lines, bus = net.line, net.bus.name
    for column, expected in (
        ("r_ohm", lines.r_ohm_per_km * lines.length_km),
        ("x_ohm", lines.x_ohm_per_km * lines.length_km),
        ("c_nf", lines.c_nf_per_km * lines.length_km),
        ("length_km", lines.length_km),
        ("i_max_a", lines.max_i_ka * 1000),
        ("loading_max_percent", lines.max_loading_percent),
    ):
        assert np.allclose([getattr(line, column) for line in converted.grid.lines], expected, rtol=1e-12)
    ends = [(line.from_bus, line.to_bus) for line in converted.grid.lines]
    assert ends == list(zip(lines.from_bus.map(bus), lines.to_bus.map(bus), strict=True))
    for column in ("sn_mva", "vn_hv_kv", "vn_lv_kv", "vk_percent", "vkr_percent", "pfe_kw", "i0_percent"):
        assert [getattr(item, column) for item in converted.grid.transformers] == list(net.trafo[column])
    taps = [(t.tap_side, t.tap_pos, t.tap_min, t.tap_max, t.tap_step_percent) for t in converted.grid.transformers]
    assert taps == [("hv", -1, -9, 9, 1.5)] * 2
    assert list(net.trafo.tap_changer_type) == ["Ratio"] * 2
    assert [t.loading_max_percent for t in converted.grid.transformers] == [50.0, 50.0]


@pytest.mark.spec("GRID-01")
def test_powers_over_the_year_are_those_of_simbench(converted: SimbenchGrid, net: Any) -> None:
    absolute = simbench.get_absolute_values(net, profiles_instead_of_study_cases=True)
    loads, generators, profiles = converted.grid.loads, converted.grid.generators, converted.profiles
    p = profiles.rows(load.profile_p for load in loads) * np.array([[load.p_mw] for load in loads])
    q = profiles.rows(load.profile_q for load in loads) * np.array([[load.q_mvar] for load in loads])
    g = profiles.rows(item.profile for item in generators) * np.array([[item.p_mw] for item in generators])
    assert np.allclose(p.T, absolute["load", "p_mw"], atol=1e-12)
    assert np.allclose(q.T, absolute["load", "q_mvar"], atol=1e-12)
    assert np.allclose(g.T, absolute["sgen", "p_mw"], atol=1e-12)


@pytest.mark.spec("GRID-01")
def test_the_year_has_its_short_and_its_long_day(converted: SimbenchGrid, net: Any) -> None:
    stamps = net.profiles["load"]["time"]
    zone = ZoneInfo("Europe/Berlin")
    labels = [local_label(instant, zone) for instant in converted.profiles.axis]
    assert converted.profiles.axis == YEAR and len(set(labels)) == len(stamps) == 35_136
    assert labels[0] == "2016-01-01T00:00+01:00" and labels[-1] == "2016-12-31T23:45+01:00"
    assert [f"{s[6:10]}-{s[3:5]}-{s[:2]}T{s[11:]}" for s in stamps] == [label[:16] for label in labels]
    days = {day: sum(label.startswith(day) for label in labels) for day in ("2016-03-27", "2016-07-05", "2016-10-30")}
    assert list(days.values()) == [92, 96, 100]


@pytest.mark.spec("GRID-01")
def test_perimeters_are_the_feeders_that_pandapower_finds(converted: SimbenchGrid, net: Any) -> None:
    joined = topology.create_nxgraph(net, include_lines=False, include_trafos=False)
    ends = set(net.trafo.hv_bus) | set(net.trafo.lv_bus)
    busbars = set().union(*(nx.node_connected_component(joined, bus) for bus in ends))
    outside = topology.create_nxgraph(net, nogobuses=busbars, include_trafos=False)
    parts = {frozenset(net.bus.name[list(part)]) for part in nx.connected_components(outside)}
    ours: dict[str, set[str]] = {}
    for bus in converted.grid.buses:
        ours.setdefault(bus.perimeter, set()).add(bus.bus)
    assert ours.pop("") == set(net.bus.name[list(busbars)])
    assert {frozenset(part) for part in ours.values()} == parts
    assert sorted(ours) == [f"F{number:02d}" for number in range(1, 12)]


def test_scaling_moves_loads_and_photovoltaics_alone(converted: SimbenchGrid) -> None:
    grid, other = converted.grid, scaled(converted.grid, 0.5, 3.0)
    assert np.allclose([load.p_mw for load in other.loads], [0.5 * load.p_mw for load in grid.loads], rtol=1e-9)
    assert np.allclose([load.q_mvar for load in other.loads], [0.5 * load.q_mvar for load in grid.loads], atol=1e-9)
    for before, after in zip(grid.generators, other.generators, strict=True):
        assert after.p_mw == pytest.approx(before.p_mw * (3.0 if before.technology == "pv" else 1.0))
    assert other.lines == grid.lines and other.buses == grid.buses


def test_a_cached_grid_is_the_same_and_needs_no_simbench(cache: Path, converted: SimbenchGrid) -> None:
    again = load_grid(CODE, cache)
    assert again.grid == converted.grid
    assert again.profiles.names == converted.profiles.names and again.profiles.axis == converted.profiles.axis
    assert again.profiles.values.tobytes() == converted.profiles.values.tobytes()
    script = (
        "import sys; from pathlib import Path; from coflex.adapters.grids.simbench import load_grid; "
        "load_grid(sys.argv[1], Path(sys.argv[2])); "
        "print([name for name in ('simbench', 'pandapower') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, CODE, str(cache)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_cache_of_another_version_is_replaced_as_a_whole(
    cache: Path, converted: SimbenchGrid, net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simbench, "get_simbench_net", lambda code: net)  # as it was read before
    (cache / CODE / "version").write_text("0")
    (cache / CODE / "loads.parquet").unlink()
    (cache / CODE / "left over").write_text("from another version")
    assert load_grid(CODE, cache).grid == converted.grid
    assert not (cache / CODE / "left over").exists()
    assert [path.name for path in cache.iterdir()] == [CODE]


@pytest.fixture
def spoiled(net: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The net with one stamp of its generators' profiles an hour off."""
    frame = net.profiles["renewables"]
    stamp = frame.at[7000, "time"]
    frame.at[7000, "time"] = "13.03.2016 23:00"
    monkeypatch.setattr(simbench, "get_simbench_net", lambda code: net)
    yield net
    frame.at[7000, "time"] = stamp


def test_stamps_that_are_not_local_time_are_refused(spoiled: Any) -> None:
    with pytest.raises(Refused) as refused:
        read_simbench(CODE)
    assert [finding.place for finding in refused.value.findings] == ["SimBench profiles, renewables, row 7000"]


@pytest.mark.parametrize("code", ["1-MV-nowhere--0-sw", "../elsewhere", ""])
def test_an_unknown_code_is_refused_and_leaves_nothing(tmp_path: Path, code: str) -> None:
    with pytest.raises(CoflexError, match="no SimBench grid"):
        load_grid(code, tmp_path)
    assert list(tmp_path.iterdir()) == []
