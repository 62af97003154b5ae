"""Quarter-hour energies: the sum by hand, any order, versions that stay."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError
from coflex.domain.reading import Quality
from coflex.metering.quarters import QUALITIES, QUARTER_MS, Columns, Quarters, latest, quarter_hours, revised

START = 1_782_900_000_000
Row = tuple[int, int, int, float, int, int]


def columns(rows: Sequence[Row]) -> Columns:
    point, at, step, value, revision, leaf = (list(one) for one in zip(*rows, strict=True)) if rows else ([],) * 6
    return Columns(
        np.array(point, np.uint32), np.array(at, np.int64), np.array(step, np.uint32), np.array(value, np.float64),
        np.array(revision, np.uint8), np.array(leaf, np.int64),
    )  # fmt: skip


def seconds(watts: Sequence[float], at: int = START, step: int = 4_000, leaf: int = 0, revision: int = 0) -> list[Row]:
    return [(1, at + i * step, step, value, revision, leaf) for i, value in enumerate(watts)]


def qualities(found: Quarters) -> list[Quality]:
    return [QUALITIES[one] for one in found.quality]


def test_four_seconds_add_to_a_quarter_hour() -> None:
    """225 values: 100 at 3 600 W and 125 at -1 800 W are 400 Wh and -250 Wh."""
    found = quarter_hours(columns(seconds([3_600.0] * 100 + [-1_800.0] * 125)))
    assert found.energy_kwh == pytest.approx([0.15], abs=1e-12)
    assert (found.start.tolist(), qualities(found), found.covered.tolist()) == ([START], [Quality.MEASURED], [1.0])


def test_energies_in_wh_add_as_they_are() -> None:
    found = quarter_hours(columns(seconds([10.0, -4.0, 0.5], step=300_000)), energy=True)
    assert found.energy_kwh == pytest.approx([0.0065], abs=1e-15)


def test_an_interval_across_quarters_is_shared_by_time() -> None:
    found = quarter_hours(columns([(1, START - 300_000, 2_100_000, 1_200.0, 0, 0)]))
    assert found.covered == pytest.approx([1 / 3, 1, 1])
    assert found.energy_kwh[1:] == pytest.approx([0.3, 0.3])
    assert qualities(found) == [Quality.MISSING, Quality.MEASURED, Quality.MEASURED]
    assert np.isnan(found.energy_kwh[0])


@pytest.mark.parametrize(
    ("there", "quality"),
    [(225, Quality.MEASURED), (224, Quality.ESTIMATED), (203, Quality.ESTIMATED), (202, Quality.MISSING)],
)
def test_what_is_missing_makes_an_estimate_or_nothing(there: int, quality: Quality) -> None:
    values = [1_000.0] * there + [float("nan")] * (225 - there)
    found = quarter_hours(columns(seconds(values)))
    assert qualities(found) == [quality]
    expected = [np.nan] if quality is Quality.MISSING else [0.25]
    np.testing.assert_allclose(found.energy_kwh, expected, rtol=1e-12)


def test_a_correction_is_a_version_and_overwrites_nothing() -> None:
    """A late reading and then a correction: each size of the log keeps its own answer."""
    first = seconds([1_000.0] * 200, leaf=10)
    late = seconds([1_000.0] * 25, at=START + 200 * 4_000, leaf=20)
    better = seconds([2_000.0] * 225, leaf=30, revision=1)
    every = columns(better + late + first)
    before, then, now = (quarter_hours(every, size) for size in (11, 21, 31))
    assert qualities(before) == [Quality.MISSING]
    assert then.energy_kwh == pytest.approx([0.25])
    assert now.energy_kwh == pytest.approx([0.5])
    assert [one.leaf.tolist() for one in (before, then, now)] == [[10], [20], [30]]
    assert len(quarter_hours(every, 10)) == 0
    assert revised(then, now).energy_kwh == pytest.approx([0.5])
    assert revised(before, then).start.tolist() == [START]
    assert len(revised(now, now)) == len(revised(before, before)) == 0
    assert len(revised(quarter_hours(every, 10), then)) == 1


def test_a_correction_that_takes_readings_back_is_told() -> None:
    """A meter that is found broken says so with a higher revision: what it told is missing from then on."""
    first = [(1, START, QUARTER_MS, 1_000.0, 0, 10), (1, START + QUARTER_MS, QUARTER_MS, 1_000.0, 0, 10)]
    every = columns([*first, (1, START, QUARTER_MS, np.nan, 1, 20)])
    then, now = (quarter_hours(every, size) for size in (11, 21))
    changed = revised(then, now)
    assert (changed.start.tolist(), qualities(changed), changed.leaf.tolist()) == ([START], [Quality.MISSING], [20])
    assert np.isnan(changed.energy_kwh).all() and len(revised(now, now)) == 0


readings = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 900).map(lambda i: START + i * 4_000),
        st.sampled_from([4_000, 60_000, 900_000]),
        st.integers(-20_000, 20_000).map(float), st.integers(0, 3), st.integers(0, 50),
    ),
    max_size=60, unique_by=lambda row: (row[0], row[1], row[4], row[5]),
)  # fmt: skip


@given(readings, st.randoms(use_true_random=False), st.integers(0, 51))
def test_any_order_gives_the_same_bits(rows: list[Row], chance: object, size: int) -> None:
    other = rows[:]
    chance.shuffle(other)  # type: ignore[attr-defined]
    one, two = quarter_hours(columns(rows), size), quarter_hours(columns(other), size)
    for name in ("point", "start", "energy_kwh", "covered", "quality", "leaf"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@given(readings)
def test_energy_is_neither_made_nor_lost(rows: list[Row]) -> None:
    """Over all quarters, power times time of the readings chosen; a quarter's own by exact fractions."""
    chosen = latest(columns(rows))
    assert len({(p, a) for p, a in zip(chosen.point.tolist(), chosen.at.tolist(), strict=True)}) == len(chosen)
    found = quarter_hours(columns(rows))
    exact: dict[tuple[int, int], Fraction] = {}
    for point, at, step, value in zip(
        *(one.tolist() for one in (chosen.point, chosen.at, chosen.step, chosen.value)), strict=True
    ):
        for start in range(at // QUARTER_MS * QUARTER_MS, at + step, QUARTER_MS):
            time = min(at + step, start + QUARTER_MS) - max(at, start)
            exact[point, start] = exact.get((point, start), Fraction(0)) + Fraction(int(value) * time, 3_600_000_000)
    assert set(exact) == set(zip(found.point.tolist(), found.start.tolist(), strict=True))
    for point, start, energy, covered in zip(
        *(one.tolist() for one in (found.point, found.start, found.energy_kwh, found.covered)), strict=True
    ):
        if covered >= 1:
            assert energy == pytest.approx(float(exact[point, start]), abs=1e-9)


def test_a_grid_holds_what_is_there_and_names_the_rest_missing() -> None:
    rows = [*seconds([1_000.0] * 225), (5, START + QUARTER_MS, QUARTER_MS, -400.0, 0, 0)]
    energy, quality = quarter_hours(columns(rows)).grid(np.array([1, 4, 5]), START, 2)
    np.testing.assert_allclose(energy, [[0.25, np.nan], [np.nan, np.nan], [np.nan, -0.1]])
    assert quality.tolist() == [[0, 2], [2, 2], [2, 0]]
    with pytest.raises(CoflexError):
        quarter_hours(columns(rows)).grid(np.array([1]), START + 1, 2)
    with pytest.raises(CoflexError):
        Columns(*(np.zeros(n) for n in (1, 1, 1, 2, 1, 1)))  # type: ignore[arg-type]
