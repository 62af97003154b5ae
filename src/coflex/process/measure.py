"""Measure: what really flowed, what the grid was like, and whether each unit did as it was told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coflex.domain.activation import SetPoint
from coflex.domain.errors import NotReady, refuse
from coflex.domain.need import Violation
from coflex.domain.party import Role
from coflex.domain.quantity import Floats
from coflex.domain.reading import Reading
from coflex.domain.series import Series
from coflex.grid.assess import violations
from coflex.grid.powerflow import GridState, solve
from coflex.metering.quality import out_of_range, substitute
from coflex.process.day import Day
from coflex.process.lookups import ACTIVATED, EVIDENCE, planned_holdings
from coflex.process.operation import operation
from coflex.process.ports import Devices, Evidence, Metering, Store, Transaction

# A unit is reported when it gave less than this share of its order.
SHORT = 0.75


@dataclass(frozen=True, slots=True)
class Measured:
    """Readings taken, orders that were missed, and violations in each state of the day (element quarter-hours)."""

    readings: int
    missed: int
    violations: dict[str, int]


def measure(day: Day, store: Store, devices: Devices, evidence: Evidence | None = None) -> Measured:
    """Read every called unit over the day and assess the four states of the grid.

    What meters tell as signed messages counts where `evidence` is kept, else what flowed.

    forecast: as each definitive part was foreseen; planned: with what was definitively bought; untouched: what would
    have come true without any activation; actual: what came true. Raises NotReady before set points are sent.
    """
    with store.transaction() as t:
        points = t.all(SetPoint)
        if t.document(ACTIVATED) is None:
            raise NotReady("No set points have been sent yet.", "Run coflex activate first.")
        if t.series("actual") is not None:
            raise NotReady("The day is already measured.", "Settle it with coflex settle.")
        untouched = day.unit_kw(day.truth(day.case.axis))
        flowed = devices.respond(points, untouched)
        called = sorted({point.unit for point in points})
        told = None if evidence is None else evidence.collect(points, flowed)
        readings = _readings(day, flowed if told is None else _in_rows(told.metered, flowed), untouched, called)
        if told is not None:
            t.put_document(EVIDENCE, _evidence(told, called))
        t.add(readings)
        t.put_series("actual", flowed)
        counts = _assess(day, t, flowed.values - untouched.values)
        missed = _missed(points, flowed, untouched)
        t.put_document("monitoring", {"missed": missed})
        dso, keeper = day.party(Role.DSO), day.party(Role.METERED_DATA_ADMINISTRATOR)
        t.event("readings", day.case.axis.end, keeper, dso, f"{len(readings)} readings of {len(called)} units")
    return Measured(len(readings), len(missed), counts)


def _in_rows(metered: Series, flowed: Series) -> Series:
    """What meters told, its rows in the order of what flowed."""
    return Series(flowed.names, flowed.axis, np.stack([metered.row(name) for name in flowed.names]))


def _evidence(told: Metering, called: Sequence[str]) -> dict[str, object]:
    """Where the log holds what called units were told and told themselves."""
    proof, rows = told.proof, {name: row for row, name in enumerate(told.metered.names)}
    orders = [
        {
            "unit": unit,
            "start": start.isoformat(),
            "leaf": leaf,
            "hops": [[hop.value, at.isoformat()] for hop, at in proof.hops.get((unit, start), ())],
        }
        for (unit, start), leaf in sorted(proof.orders.items(), key=lambda one: one[1])
    ]
    log = {"origin": proof.origin, "size": proof.size, "checkpoint": proof.checkpoint, "key": proof.key}
    readings = {unit: told.leaves[rows[unit]].tolist() for unit in called}
    return {**log, "orders": orders, "readings": readings}


def _readings(day: Day, flowed: Series, untouched: Series, called: Sequence[str]) -> list[Reading]:
    rated = np.array([max(unit.up_kw, unit.down_kw) for unit in day.units], dtype=np.float64)
    reach = np.abs(untouched.values).max(axis=1) + rated
    refuse("The measurements", out_of_range(flowed, -reach, reach))
    instants = tuple(flowed.axis)
    readings = []
    for name in called:
        u = day.unit_index[name]
        filled = substitute(flowed.values[u], untouched.values[u])
        pairs = zip(instants, filled.values.tolist(), filled.quality, strict=True)
        readings += [Reading(name, start, round(kw, 6), quality) for start, kw, quality in pairs]
    return readings


def grid_states(day: Day, t: Transaction, moved_kw: Floats) -> dict[str, GridState]:
    """The four states of the day; `moved_kw[u, t]`: by how much units really moved, injection positive."""
    axis = day.case.axis
    foreseen = day.injections(day.firm(t, "forecast"))
    real = day.injections(day.truth(axis))
    bought = day.changes(day.held_kw(planned_holdings(t), axis))
    moved = day.changes(moved_kw)
    runs = operation(day, t, axis)
    return {
        # What was foreseen before anything was done about it, the operator's own means too.
        "forecast": solve(day.network, *foreseen),
        "planned": runs.solve(foreseen[0] + bought[0], foreseen[1] + bought[1]),
        "untouched": runs.solve(*real),
        "actual": runs.solve(real[0] + moved[0], real[1] + moved[1]),
    }


def _assess(day: Day, t: Transaction, moved_kw: Floats) -> dict[str, int]:
    counts = {}
    for name, state in grid_states(day, t, moved_kw).items():
        found = violations(day.network, state, day.case.axis)
        t.put_document(f"violations/{name}", {"violations": [_as_row(violation) for violation in found]})
        t.put_series(f"state/{name}/vm", Series(day.network.node_names, day.case.axis, state.vm.T))
        t.put_series(f"state/{name}/loading", Series(day.network.branch_names, day.case.axis, state.loading.T))
        flows = np.stack([state.interface_p_mw, state.interface_q_mvar, state.losses_mw])
        t.put_series(f"state/{name}/interface", Series(("p_mw", "q_mvar", "losses_mw"), day.case.axis, flows))
        counts[name] = len(found)
    return counts


def _as_row(violation: Violation) -> dict[str, object]:
    return {
        "start": violation.start.isoformat(),
        "element": violation.element,
        "kind": violation.kind.value,
        "value": round(violation.value, 6),
        "bound": round(violation.bound, 6),
    }


def _missed(points: Sequence[SetPoint], flowed: Series, untouched: Series) -> list[dict[str, object]]:
    """Orders of which too little came: the unit moved by less than it was told, against what it would have done."""
    row = {name: i for i, name in enumerate(flowed.names)}
    missed = []
    for point in points:
        u, t = row[point.unit], flowed.axis.position(point.start)
        moved = point.direction.sign * float(flowed.values[u, t] - untouched.values[u, t])
        above = point.direction.sign * (point.power_kw - float(flowed.values[u, t])) > 0
        if point.ordered_kw and above and moved < SHORT * point.ordered_kw:
            missed.append(
                {
                    "unit": point.unit,
                    "start": point.start.isoformat(),
                    "ordered_kw": point.ordered_kw,
                    "moved_kw": round(moved, 3),
                }
            )
    return missed
