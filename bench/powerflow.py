"""A day's grid check beside the bare engine and beside pandapower's time series, in one run.

    python bench/powerflow.py --cache cases/.grids

The check: power flow of 96 quarter-hours, the loading of both ends of every branch, all limits compared, violations
listed. "Bare" is one `calculate_power_flow` of power-grid-model on the same model and the same update, prepared
before, with all its defaults (Newton-Raphson to 1e-8, one thread, output of all components); "bare, nodes only" leaves
all output but the voltages out. pandapower runs its `run_timeseries` with default settings on SimBench's own net
(profiles by constant controllers); of the large grid a few steps are taken and the slope of their time counts.
Contenders take turns, ratios are taken turn by turn; what is shown is the median. Processor time (of all threads)
stands beside the clock's: it says more on a machine that is busy.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import platform
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from power_grid_model import ComponentType, DatasetType, PowerGridModel, initialize_array
from table import Line, asks_for_lines, give

from coflex.adapters.grids.simbench import YEAR, SimbenchGrid, load_grid, pandapower_of
from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.grid.assess import violations
from coflex.grid.injection import element_powers, node_injections
from coflex.grid.network import Network, build
from coflex.grid.powerflow import Method, components, solve

# The 3rd of July 2016, 23:00 UTC on: a summer's day of local time.
FIRST, COUNT = 17_664, 96
GRIDS = ("1-MV-urban--0-sw", "1-MVLV-urban-all-0-sw")
# Steps of pandapower in grids above this many nodes.
LARGE, FEW = 2_000, (2, 6)
# The most that a check may take of the bare call; how many times as fast as pandapower it must be, small and large.
MOST_OF_BARE, LEAST_OF_PANDAPOWER = 1.1, (100.0, 12.0)


def main() -> None:
    """Measure, and print a table a grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grids", nargs="*", default=GRIDS, help="SimBench codes")
    parser.add_argument("--cache", type=Path, help="where converted grids are kept; a temporary folder without it")
    parser.add_argument("--turns", type=int, default=15, help="turns of each contender on a small grid")
    asks_for_lines(parser)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    numba = "with" if importlib.util.find_spec("numba") else "without"
    print(f"{os.cpu_count()} processors, Python {platform.python_version()}, pandapower {numba} numba")
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as room:
        for code in given.grids:
            lines += _grid(code, load_grid(code, given.cache or Path(room)), given.turns)
    give(lines, given.lines)


def _grid(code: str, grid: SimbenchGrid, turns: int) -> list[Line]:
    network = build(grid.grid)
    day = Axis(YEAR[FIRST], COUNT)
    names = grid.profiles.names
    profiles = Series(names, day, np.ascontiguousarray(grid.profiles.values[:, FIRST : FIRST + COUNT]))
    p, q = (node_injections(network, x) for x in element_powers(grid.grid, profiles))
    turns = turns if network.n < LARGE else max(3, turns // 3)
    taken = _taken(_contenders(network, day, p, q), turns)
    load = os.getloadavg()[0]
    found = len(violations(network, solve(network, p, q), day))
    print(f"\n{code}: {network.n} nodes, {network.m} branches, {COUNT} periods, {found} violations, load {load:.1f}")
    print(f"{'':26}{'clock':>12}{'to bare':>9}{'to nodes':>9}{'processor':>14}{'to bare':>9}{'to nodes':>9}")
    for name, seconds in taken.items():
        cells = [f"{name:26}"]
        for kind in (0, 1):
            own = seconds[:, kind]
            ratios = [np.median(own / taken[other][:, kind]) for other in ("bare", "bare, nodes only")]
            cells.append(f"{1000 * np.median(own):{9 + 2 * kind}.1f} ms{ratios[0]:9.2f}{ratios[1]:9.2f}")
        print("".join(cells))
    panda, words = _pandapower(code, network, p, q)
    print(f"pandapower's time series, {words}: {panda[0]:.2f} s, processor {panda[1]:.2f} s")
    lines = []
    for method in Method:
        own = taken[f"check, {method}"]
        times = panda / np.median(own, axis=0)
        print(f"  {times[0]:.0f} times the check, {method}; {times[1]:.0f} times in processor time")
        what, median = f"check of a day, {network.n} nodes, {method}", f"{1000 * np.median(own[:, 0]):.1f} ms"
        of_bare = float(np.median(own[:, 0] / taken["bare"][:, 0]))
        beside = f"the bare batch, {1000 * np.median(taken['bare'][:, 0]):.1f} ms"
        lines.append(Line(what, median, of_bare, beside, at_most=MOST_OF_BARE))
        least = LEAST_OF_PANDAPOWER[network.n >= LARGE]
        other = f"pandapower's time series of {network.n} nodes"
        lines.append(Line(other, f"{panda[0]:.2f} s", float(times[0]), f"the check, {method}", at_least=least))
    return lines


def _contenders(network: Network, day: Axis, p: Floats, q: Floats) -> dict[str, Callable[[], Any]]:
    model = PowerGridModel(components(network))
    update = initialize_array(DatasetType.update, ComponentType.sym_load, (COUNT, network.n - 1))
    update["id"] = components(network)[ComponentType.sym_load]["id"]
    update["p_specified"], update["q_specified"] = -1e6 * p[:, network.not_slack], -1e6 * q[:, network.not_slack]
    data = {ComponentType.sym_load: update}
    return {
        "bare": lambda: model.calculate_power_flow(update_data=data),
        "bare, nodes only": lambda: model.calculate_power_flow(
            update_data=data, output_component_types=[ComponentType.node]
        ),
        **{
            f"check, {method}": lambda method=method: violations(network, solve(network, p, q, method), day)
            for method in Method
        },
    }


def _taken(contenders: dict[str, Callable[[], Any]], turns: int) -> dict[str, Floats]:
    """Seconds of the clock and of the processor [turns, 2] of each contender, after a turn that does not count."""
    taken: dict[str, list[Floats]] = {name: [] for name in contenders}
    for _ in range(turns + 1):
        for name, act in contenders.items():
            taken[name].append(_seconds(act))
    return {name: np.array(seconds[1:]) for name, seconds in taken.items()}


def _seconds(act: Callable[[], Any]) -> Floats:
    clock, processor = perf_counter(), process_time()
    act()
    return np.array([perf_counter() - clock, process_time() - processor])


def _pandapower(code: str, network: Network, p: Floats, q: Floats) -> tuple[Floats, str]:
    """Seconds of pandapower's time series of the day, and how they were taken. Both must find the same voltages."""
    import pandapower
    import simbench

    net = pandapower_of(code)
    net.profiles = {
        name: frame.iloc[FIRST : FIRST + COUNT].reset_index(drop=True) for name, frame in net.profiles.items()
    }
    # As in our tables a storage rests until it is called.
    net.storage.drop(net.storage.index, inplace=True)
    simbench.apply_const_controllers(net, simbench.get_absolute_values(net, profiles_instead_of_study_cases=True))
    if network.n < LARGE:
        seconds, words = _series(net, COUNT), f"{COUNT} steps"
    else:
        few, more = (_series(net, count) for count in FEW)
        seconds = (more - few) / (FEW[1] - FEW[0]) * COUNT
        words = f"slope of {FEW[0]} to {FEW[1]} steps times {COUNT}"
    last = (COUNT if network.n < LARGE else FEW[1]) - 1
    # The series keeps its voltages to itself; the last step's loads are still on the net.
    pandapower.runpp(net)
    there = net.res_bus.vm_pu[net.bus.in_service.astype(bool)].to_numpy()
    apart = np.abs(there - solve(network, p[[last]], q[[last]]).vm[0, network.node_of_bus]).max()
    return seconds, f"{words}, voltages {apart:.0e} pu apart"


def _series(net: Any, steps: int) -> Floats:
    from pandapower.timeseries import OutputWriter
    from pandapower.timeseries.run_time_series import run_timeseries

    OutputWriter(net, time_steps=range(steps))
    with contextlib.redirect_stdout(io.StringIO()):
        return _seconds(lambda: run_timeseries(net, time_steps=range(steps), verbose=False))


if __name__ == "__main__":
    main()
