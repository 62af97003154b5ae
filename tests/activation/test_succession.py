"""The next of the list, and a provider's backups: never beyond the list, a unit, or a light (ACT-03, ACT-06)."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.activation.rebalance import WITHIN, Backup, deadline, rebalance
from coflex.activation.succession import Candidate, Line, Skipped, succeed

PLACES = ["P1", "P2", ""]
UNITS = [f"u{k}" for k in range(8)]


@st.composite
def lists(draw: st.DrawFn) -> list[Line]:
    where = {unit: draw(st.sampled_from(PLACES)) for unit in UNITS}
    count = draw(st.integers(0, 6))
    found = []
    for rank in range(count):
        names = draw(st.lists(st.sampled_from(UNITS), unique=True, max_size=3))
        units = tuple(
            Candidate(
                name, where[name], draw(st.integers(0, 50)), draw(st.sampled_from([None, None, Skipped.NOT_FREE]))
            )
            for name in names
        )
        why = draw(st.sampled_from([None, None, None, Skipped.BOUND, Skipped.DEAR]))
        found.append(Line(rank, f"o{rank}", 1, f"sp-{rank}", Decimal(rank), draw(st.integers(0, 60)), units, why))
    return found


rooms = st.dictionaries(st.sampled_from(["P1", "P2"]), st.integers(0, 60))


@pytest.mark.spec("ACT-03")
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 150), lists(), rooms, st.sets(st.sampled_from(["P1", "P2"])), st.randoms())
def test_a_succession_stays_inside_the_list_the_units_and_the_lights(
    missing: int, lines: list[Line], room: dict[str, int], barred: set[str], chance: object
) -> None:
    found = succeed(missing, lines, room, barred)
    assert sum(call.kw for call in found.calls) + found.missing_kw == missing and found.missing_kw >= 0
    by_offer = {line.offer: line for line in lines}
    assert len({call.unit for call in found.calls}) == len(found.calls)
    for offer, line in by_offer.items():
        assert sum(call.kw for call in found.calls if call.offer == offer) <= (0 if line.why_not else line.left_kw)
    spent: dict[str, int] = {}
    for call in found.calls:
        unit = next(one for one in by_offer[call.offer].units if one.unit == call.unit)
        assert 0 < call.kw <= unit.free_kw and unit.why_not is None and unit.perimeter not in barred
        spent[unit.perimeter] = spent.get(unit.perimeter, 0) + call.kw
    assert all(kw <= room.get(place, kw) for place, kw in spent.items())
    mixed = list(lines)
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    assert succeed(missing, mixed, room, barred) == found


@pytest.mark.spec("ACT-03")
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 150), lists(), rooms)
def test_a_later_line_is_called_only_when_those_before_it_gave_all_they_can(
    missing: int, lines: list[Line], room: dict[str, int]
) -> None:
    whole = succeed(missing, lines, room)
    for count in range(len(lines)):
        part = succeed(missing, lines[:count], room)
        assert part.calls == whole.calls[: len(part.calls)]


def test_what_is_passed_over_has_its_reason() -> None:
    lines = [
        Line(1, "block", 1, "a", Decimal(10), 50, (Candidate("u1", "", 50),), Skipped.BOUND),
        Line(2, "bought", 1, "a", Decimal(11), 0, (Candidate("u2", "", 50),)),
        Line(3, "mixed", 1, "b", Decimal(12), 50, (
            Candidate("u3", "P1", 50), Candidate("u4", "P2", 50), Candidate("u5", "P3", 0),
            Candidate("u6", "P4", 50, Skipped.NOT_QUALIFIED),
        )),
        Line(4, "next", 1, "c", Decimal(13), 50, (Candidate("u7", "P5", 50),)),
    ]  # fmt: skip
    found = succeed(30, lines, {"P2": 0}, {"P1"})
    assert [(call.unit, call.kw, call.price_eur_mwh) for call in found.calls] == [("u7", 30, Decimal(13))]
    assert dict(found.skipped) == {
        "block": Skipped.BOUND, "bought": Skipped.BOUGHT, "u3": Skipped.BARRED, "u4": Skipped.NO_ROOM,
        "u5": Skipped.NOT_FREE, "u6": Skipped.NOT_QUALIFIED,
    }  # fmt: skip


# ---------------------------------------------------------------- backups

backups = st.lists(
    st.builds(Backup, st.sampled_from(UNITS), st.sampled_from(PLACES), st.tuples(*[st.integers(0, 40)] * 3),
              st.integers(0, 600), st.integers(0, 20), st.one_of(st.none(), st.floats(0, 40))),
    unique_by=lambda one: one.unit, max_size=6,
)  # fmt: skip
places = st.dictionaries(st.tuples(st.sampled_from(["P1", "P2"]), st.integers(0, 2)), st.integers(0, 60))


@pytest.mark.spec("ACT-06")
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=3, max_size=3), backups, places, st.sampled_from(PLACES), st.randoms())
def test_backups_replace_what_they_can_and_no_light_is_passed(
    missing: list[int], units: list[Backup], room: dict[tuple[str, int], int], home: str, chance: object
) -> None:
    hours = [0.25, 0.05, 0.2]
    found = rebalance(missing, hours, units, room, home)
    for unit, given_kw in zip(sorted(units, key=lambda one: one.unit), found.kw.tolist(), strict=True):
        assert unit.energy_kwh is None or float(np.dot(given_kw, hours)) <= unit.energy_kwh + 1e-6
    assert (found.kw.sum(axis=0) + found.missing_kw).tolist() == missing and (found.missing_kw >= 0).all()
    by_unit = {one.unit: one for one in units}
    for t in range(3):
        spent: dict[str, int] = {}
        for unit, kw in zip(found.units, found.kw[:, t].tolist(), strict=True):
            one = by_unit[unit]
            assert kw == 0 or one.least_kw <= kw <= one.kw[t]
            spent[one.perimeter] = spent.get(one.perimeter, 0) + kw
        assert all(kw <= room.get((place, t), kw) for place, kw in spent.items())
    mixed = list(units)
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    assert (rebalance(missing, hours, mixed, room, home).kw == found.kw).all()


@pytest.mark.spec("ACT-06")
def test_the_same_perimeter_steps_in_first_then_whoever_is_soonest() -> None:
    units = [Backup("far", "P2", (50,), 1), Backup("slow", "P1", (50,), 300), Backup("soon", "P1", (10,), 60)]
    found = rebalance([40], [1.0], units, {}, "P1")
    assert dict(zip(found.units, found.kw[:, 0].tolist(), strict=True)) == {"far": 0, "slow": 30, "soon": 10}
    assert WITHIN.total_seconds() == 900
    with pytest.raises(ValueError, match="twice"):
        rebalance([1], [1.0], [units[0], units[0]], {})


@pytest.mark.spec("ACT-06")
def test_the_provider_has_a_quarter_of_an_hour() -> None:
    from datetime import UTC, datetime

    assert deadline(datetime(2026, 7, 5, 10, 7, tzinfo=UTC)) == datetime(2026, 7, 5, 10, 22, tzinfo=UTC)
