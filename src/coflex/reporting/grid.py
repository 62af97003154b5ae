"""The grid's part of the page: where things stand, the four states of the day, static and dynamic lights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.light import Colour, DynamicLight
from coflex.domain.need import Violation
from coflex.domain.qualification import LimitKind, StaticLight, StaticMode, Verdict
from coflex.domain.quantity import Direction, Floats
from coflex.domain.time import Axis, local_label
from coflex.domain.unit import Unit
from coflex.grid.network import Network
from coflex.reporting.form import number, rounded

WORST = 12
EXAMPLES = 12


@dataclass(frozen=True, eq=False)
class StateView:
    """A state of the day: `vm[n, t]` in pu, `loading[m, t]` as a share of the rating, and what it breaks."""

    vm: Floats
    loading: Floats
    violations: tuple[Violation, ...]


def grid_section(
    network: Network,
    axis: Axis,
    zone: ZoneInfo,
    places: Mapping[str, tuple[float, float]],
    states: Mapping[str, StateView],
) -> dict[str, Any]:
    """`places`: longitude and latitude by bus; `states` by name."""
    lines = [
        {
            "name": name,
            "from": int(network.from_node[b]),
            "to": int(network.to_node[b]),
            "kind": "transformer" if network.is_transformer[b] else "line",
            "perimeter": network.node_perimeter[network.to_node[b]] or network.node_perimeter[network.from_node[b]],
            "loading_max": number(network.loading_max[b], 6),
            "closed": bool(network.from_on[b] and network.to_on[b]),
        }
        for b, name in enumerate(network.branch_names)
    ]
    nodes = [
        {
            "name": name,
            "lon": number(places[name][0], 6),
            "lat": number(places[name][1], 6),
            "perimeter": network.node_perimeter[n],
            "vn_kv": number(network.vn_kv[n], 6),
            "v_min": number(network.v_min[n], 6),
            "v_max": number(network.v_max[n], 6),
        }
        for n, name in enumerate(network.node_names)
    ]
    views = {name: _state(network, axis, zone, view) for name, view in states.items()}
    return {"nodes": nodes, "branches": lines, "states": views}


def _state(network: Network, axis: Axis, zone: ZoneInfo, view: StateView) -> dict[str, Any]:
    loaded = [v for v in view.violations if v.kind is LimitKind.LOADING]
    strained = [v for v in view.violations if v.kind is not LimitKind.LOADING]
    at_node, at_branch = Counter(v.element for v in strained), Counter(v.element for v in loaded)
    at = Counter((v.kind, axis.position(v.start)) for v in view.violations)
    kinds = (LimitKind.VOLTAGE_LOW, LimitKind.VOLTAGE_HIGH, LimitKind.LOADING)
    per_quarter = {kind.value: [at[(kind, t)] for t in range(len(axis))] for kind in kinds}
    return {
        "node_low": rounded(view.vm.min(axis=1), 5),
        "node_high": rounded(view.vm.max(axis=1), 5),
        "branch_loading": rounded(view.loading.max(axis=1), 4),
        "node_violations": [at_node[name] for name in network.node_names],
        "branch_violations": [at_branch[name] for name in network.branch_names],
        "per_quarter": per_quarter,
        "total": {kind: sum(counts) for kind, counts in per_quarter.items()},
        "worst": [
            {
                "start": local_label(v.start, zone),
                "element": v.element,
                "kind": v.kind.value,
                "value": v.value,
                "bound": v.bound,
            }
            for v in worst_of_each(view.violations)[:WORST]
        ],
    }


def worst_of_each(violations: Sequence[Violation]) -> list[Violation]:
    """The worst quarter-hour of each element and kind, the farthest beyond its bound (as a share of it) first."""

    def rank(v: Violation) -> tuple[Any, ...]:
        return -v.excess / v.bound, v.start, v.kind, v.element

    found: dict[tuple[LimitKind, str], Violation] = {}
    for violation in sorted(violations, key=rank):
        found.setdefault((violation.kind, violation.element), violation)
    return list(found.values())


# ---------------------------------------------------------------- static lights


def static_section(lights: Sequence[StaticLight], units: Mapping[str, Unit]) -> dict[str, Any]:
    """Counts by mode, and those who lost most power, the modes in turn."""
    modes, refused = {}, []
    for mode in StaticMode:
        mine = [light for light in lights if light.mode is mode]
        verdicts = Counter(light.verdict for light in mine)
        modes[mode.value] = {verdict.value: verdicts[verdict] for verdict in Verdict} | {
            "registered_kw": sum(light.registered_kw for light in mine),
            "limit_kw": sum(light.limit_kw for light in mine),
        }
        lost = [light for light in mine if light.verdict is not Verdict.CONFIRMED]
        lost.sort(key=lambda x: (x.limit_kw - x.registered_kw, x.unit, x.direction))
        refused += list(enumerate(lost))
    refused.sort(key=lambda entry: entry[0])
    return {"modes": modes, "examples": [_example(light, units[light.unit]) for _, light in refused[:EXAMPLES]]}


def _example(light: StaticLight, unit: Unit) -> dict[str, Any]:
    return {
        "unit": light.unit,
        "technology": unit.technology.value,
        "provider": unit.provider,
        "direction": light.direction.value,
        "mode": light.mode.value,
        "verdict": light.verdict.value,
        "registered_kw": light.registered_kw,
        "limit_kw": light.limit_kw,
        "element": light.element,
        "kind": light.kind.value,
        "value": number(light.value, 6),
        "bound": number(light.bound, 6),
        "state": light.state,
    }


# ---------------------------------------------------------------- dynamic lights


def lights_section(lights: Sequence[DynamicLight], axis: Axis) -> dict[str, Any]:
    """Lights of the definitive parts, at most one a perimeter, direction and quarter-hour; "-" where there is none."""
    perimeters = sorted({light.perimeter for light in lights})
    row = {name: i for i, name in enumerate(perimeters)}
    directions = tuple(Direction)
    shape = (len(perimeters), len(directions), len(axis))
    colour = np.full(shape, "-", dtype="<U1")
    able, potential = np.zeros((2, *shape), dtype=np.int64)
    why = {}
    for light in lights:
        cell = row[light.perimeter], directions.index(light.direction), axis.position(light.start)
        colour[cell], able[cell], potential[cell] = light.colour.value[0], light.capability_kw, light.potential_kw
        if light.colour is not Colour.GREEN:
            why[cell] = light.colour.value, light.reason

    def by_place(cells: Any) -> dict[str, dict[str, Any]]:
        return {name: {d.value: cells[row[name], j].tolist() for j, d in enumerate(directions)} for name in perimeters}

    return {
        "perimeters": perimeters,
        "directions": [d.value for d in directions],
        "colour": {p: {d: "".join(c) for d, c in both.items()} for p, both in by_place(colour).items()},
        "capability_kw": by_place(able),
        "potential_kw": by_place(potential),
        "reasons": [
            {
                "perimeter": perimeters[p],
                "direction": directions[d].value,
                "t": t,
                "colour": why[(p, d, t)][0],
                "reason": why[(p, d, t)][1],
            }
            for p, d, t in sorted(why)
            if why.get((p, d, t - 1)) != why[(p, d, t)]
        ],
    }
