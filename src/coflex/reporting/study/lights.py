"""Traffic lights of a grid as tables (GRID-06): what its elements may do by perimeter, whatever split is called; by the
perimeters of the grid, or by those that let most through (GRID-07)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coflex.domain.errors import Finding
from coflex.domain.light import Colour
from coflex.grid.drawing import Flexible, draw
from coflex.grid.light import Agents, capability
from coflex.reporting.study.case import GridCase
from coflex.reporting.study.flexibility import Flexibility, flexibility

WHOLE_GRID = "whole grid"


@dataclass(frozen=True, slots=True)
class Light:
    """Capability of a perimeter in one direction and period, safe for every split and with all other lights used at
    once; `limited_by`: the limit that stops it."""

    perimeter: str
    direction: str
    start: str
    colour: Colour
    potential_kw: float
    capability_kw: float
    limited_by: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A bus and the perimeter that it was drawn into."""

    bus: str
    perimeter: str


@dataclass(frozen=True, slots=True)
class LightAnswer:
    """Sums over perimeters and periods of what could be called, and of what may."""

    grid: str
    periods: int
    perimeters: int
    green: int
    yellow: int
    red: int
    potential_kw: float
    capability_kw: float
    lights: tuple[Light, ...]
    drawn: tuple[Drawn, ...]
    findings: tuple[Finding, ...]


def lights(case: GridCase, count: int | None) -> LightAnswer:
    """The lights of all perimeters and directions; a grid without perimeters is one. With a `count`, perimeters are
    drawn anew, at most so many, where they let most through. Raises GridFailure, CoflexError on a count below 1."""
    flexible = flexibility(case)
    perimeters, agents, potential = _agents(case, flexible)
    drawn: tuple[Drawn, ...] = ()
    if count is None:
        safe = capability(case.network, case.solve(), agents, potential)
    else:
        standing = np.array([_place(perimeters, name) for name in case.network.node_perimeter], dtype=np.int64)
        made = draw(
            case.network, case.solve(), Flexible(agents.node, agents.tan_phi, agents.sign), potential, count, standing
        )
        of_agent = 2 * made.perimeter[agents.node] + (agents.sign < 0)
        agents, safe = replace(agents, part=of_agent, parts=2 * made.count), made.light
        perimeters = tuple(f"R{k + 1:02d}" for k in range(made.count))
        drawn = tuple(
            Drawn(bus, perimeters[made.perimeter[i]])
            for bus, i in zip(case.network.bus_names, case.network.node_of_bus.tolist(), strict=True)
            if made.perimeter[i] >= 0
        )
    whole = np.zeros((agents.parts, potential.shape[1]))
    np.add.at(whole, agents.part, potential)
    found = []
    for p, name in enumerate(perimeters):
        for side, direction in enumerate(("up", "down")):
            part = 2 * p + side
            for t, label in enumerate(case.labels):
                could, may = float(whole[part, t]), float(safe.kw[part, t])
                if could > 0:
                    limit = safe.element[part][t]
                    found.append(Light(name, direction, label, _colour(could, may), could, may, limit))
    seen = {colour: sum(light.colour is colour for light in found) for colour in Colour}
    return LightAnswer(
        case.name,
        len(case.labels),
        len(perimeters),
        seen[Colour.GREEN],
        seen[Colour.YELLOW],
        seen[Colour.RED],
        sum(light.potential_kw for light in found),
        sum(light.capability_kw for light in found),
        tuple(found),
        drawn,
        (*case.findings, *flexible.findings),
    )


def _colour(could_kw: float, may_kw: float) -> Colour:
    """To the kW: a watt kept back by the numbers is no limit."""
    if may_kw >= could_kw - 1.0:
        return Colour.GREEN
    return Colour.YELLOW if may_kw >= 1.0 else Colour.RED


def _place(perimeters: tuple[str, ...], name: str) -> int:
    return perimeters.index(name) if name in perimeters else -1


def _agents(case: GridCase, flexible: Flexibility) -> tuple[tuple[str, ...], Agents, np.ndarray]:
    """Elements twice, up then down, and the perimeters they belong to."""
    of_node = [name or WHOLE_GRID for name in case.network.node_perimeter]
    perimeters = tuple(sorted({of_node[i] for i in flexible.node.tolist()}))
    at = np.array([perimeters.index(of_node[i]) for i in flexible.node.tolist()], dtype=np.int64)
    count = len(at)
    agents = Agents(
        np.tile(flexible.node, 2),
        np.tile(flexible.tan_phi, 2),
        np.concatenate([np.ones(count, np.int64), -np.ones(count, np.int64)]),
        np.concatenate([2 * at, 2 * at + 1]),
        2 * len(perimeters),
    )
    return perimeters, agents, 1000.0 * np.concatenate([flexible.up_mw, flexible.down_mw])
