"""Placebo days and gaming: figures known beforehand, and the profiles of SimBench."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from coflex.adapters.grids.profiles import HOLIDAYS, kind_of, profile_readings
from coflex.adapters.grids.simbench import ZONE, SimbenchGrid
from coflex.domain.errors import CoflexError, Refused
from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.domain.time import Axis, midnight
from coflex.metering.accuracy import Placebo, accuracy, errors_of, placed, unbiased
from coflex.metering.baselines import (
    AllDays,
    Between,
    ControlGroup,
    MeterBefore,
    Pick,
    Regression,
    Rolling,
    SameDay,
    XofY,
    Zero,
    baseline,
)
from coflex.metering.baselines.document import load_method
from coflex.metering.baselines.result import Given
from coflex.metering.check import check
from coflex.metering.eligibility import DayRule, Like, UnitCalendar
from coflex.metering.gaming import Attempt, Sales, Trick, gains, signs
from coflex.metering.history import History, baselines_of, history_of

ANY = DayRule(Like.ANY, 60)
EVENTS = Placebo(events=((40, 44), (72, 80)), notice=4, run_up=20)


def history(kw: Floats, kinds: tuple[str, ...] | None = None) -> History:
    days = tuple(date(2016, 1, 4) + timedelta(days=k) for k in range(kw.shape[1]))
    names = tuple(f"u{i}" for i in range(len(kw)))
    return History(names, kinds or ("load",) * len(kw), days, kw)


def drawn(units: int = 2, days: int = 60, spread: float = 0.2, seed: int = 0) -> History:
    """Flat days whose level is normal around one: 1 kW drawn, give or take."""
    rng = np.random.default_rng(seed)
    return history(-np.repeat(rng.normal(1, spread, (units, days, 1)), 96, axis=2))


# ---------------------------------------------------------------- accuracy


@pytest.mark.spec("SET-01")
def test_the_bias_of_high_5_of_10_is_that_of_order_statistics() -> None:
    # Mean of the upper half of ten normal values: (1.5388 + 1.0014 + 0.6561 + 0.3758 + 0.1227) / 5 standard deviations
    # (H. L. Harter, Biometrika 48, 1961, table 1).
    high, low, mid, ten = (
        accuracy(drawn(60, 80), EVENTS, method, ANY)[0].bias
        for method in (XofY(5, 10), XofY(5, 10, Pick.LOW), XofY(8, 10, Pick.MID), XofY(10, 10))
    )
    assert high == pytest.approx(0.2 * 0.73896, abs=0.01)
    assert low == pytest.approx(-0.2 * 0.73896, abs=0.01)
    assert abs(mid) < 0.01 and abs(ten) < 0.01


def test_errors_are_the_formulas_written_out() -> None:
    past = drawn(1, 40)
    (row,) = accuracy(past, EVENTS, MeterBefore(4), ANY)
    assert (row.bias, row.mae, row.rrmse, row.answered) == pytest.approx((0, 0, 0, 1))
    zero = accuracy(past, EVENTS, Zero(), ANY)[0]
    assert zero.bias == pytest.approx(-1) and zero.mae == pytest.approx(1)
    levels = -past.kw[0, 20:, 0]
    assert zero.rrmse == pytest.approx(float(np.sqrt((levels**2).mean()) / levels.mean()))
    assert zero.events == 2 * 20 and zero.units == 1
    assert unbiased([row, zero]) == (row,)


def test_a_generator_is_biased_up_when_its_baseline_is_too_much_injection() -> None:
    past = drawn(3, 60)
    mirrored = replace(past, kw=-past.kw)
    one, other = (accuracy(h, EVENTS, XofY(5, 10), ANY)[0] for h in (past, mirrored))
    assert one.bias == pytest.approx(other.bias) and one.bias > 0.05


@pytest.mark.parametrize(
    "method",
    [
        XofY(3, 5),
        AllDays(2, 9, SameDay()),
        Rolling(0.8),
        Zero(),
        MeterBefore(4),
        MeterBefore(4, 4),
        MeterBefore(4, 4, Between.LINEAR),
        MeterBefore(80),
        ControlGroup(size=2, least=1),
        Regression(heating=None, cooling=None),
    ],
    ids=lambda method: method.label,
)
def test_many_units_of_a_history_are_one_unit_many_times(method: object) -> None:
    rng = np.random.default_rng(3)
    kw = -rng.random((3, 30, 96))
    kw[1, 25, 40] = np.nan
    past = history(kw)
    one = next(iter(placed(past, replace(EVENTS, run_up=28))))
    many = baselines_of(past, one, method, ANY)  # type: ignore[arg-type]
    if not isinstance(method, ControlGroup):
        there, working = np.ones(28, dtype=np.bool_), np.array([day.weekday() < 5 for day in past.days])
        for i in range(3):
            given = Given(
                one.event, one.notice, kw[i, :28], there, kw[i, 28], working=working[:28], works_today=bool(working[28])
            )
            alone = baseline(given, method).values  # type: ignore[arg-type]
            assert many[i] == pytest.approx(alone, rel=1e-12, nan_ok=True)
    else:
        assert np.array_equal(many[2], baselines_of(past, one, method, ANY, only=2)[0])


def test_a_history_needs_placebo_days_and_events_are_none() -> None:
    with pytest.raises(CoflexError, match="placebo"):
        errors_of(drawn(1, 20), EVENTS, Zero(), ANY)
    taken = UnitCalendar(events=frozenset({date(2016, 1, 24)}))
    assert len(list(placed(replace(drawn(1, 22), calendar=taken), EVENTS))) == 2


def test_units_of_a_kind_are_added_up_at_one_size() -> None:
    past = history(np.stack([np.full((30, 96), -2.0), np.full((30, 96), -8.0), np.zeros((30, 96))]), ("a", "a", "b"))
    together = past.portfolios()
    assert together.units == ("a",)
    assert together.kw == pytest.approx(-2.0)


def test_readings_become_whole_local_days_on_one_clock() -> None:
    rome = ZoneInfo("Europe/Rome")
    axis = Axis(midnight(date(2016, 3, 25), rome) + timedelta(hours=3), 96 * 5)
    hours = np.array([instant.astimezone(rome).hour for instant in axis], dtype=np.float64)
    made = history_of(Series(("u",), axis, hours[None]), {"u": "clock"}, rome, temperature=-hours)
    assert made.days == (date(2016, 3, 26), date(2016, 3, 27), date(2016, 3, 28), date(2016, 3, 29))
    assert made.kinds == ("clock",) and made.temperature is not None
    assert np.array_equal(made.kw[0, 0], np.arange(96) // 4)
    lost = np.where(np.arange(96) // 4 == 2, 1, np.arange(96) // 4)
    assert np.array_equal(made.kw[0, 1], lost) and np.array_equal(made.temperature[1], -lost)
    with pytest.raises(CoflexError, match="whole"):
        history_of(Series(("u",), Axis(axis.start, 40), hours[None, :40]), {}, rome)


# ---------------------------------------------------------------- gaming


@pytest.mark.spec("SET-01")
@pytest.mark.parametrize(
    "method", [XofY(5, 10, Pick.HIGH, SameDay()), AllDays(5, 10, SameDay()), MeterBefore(4), ControlGroup(2, 5, 1)]
)
def test_what_is_done_after_notice_gains_nothing(method: object) -> None:
    found = gains(drawn(3, 30), EVENTS, method, ANY)  # type: ignore[arg-type]
    (after,) = [one for one in found if one.trick is Trick.AFTER_NOTICE]
    assert after.gained == 0 and after.spent > 0


@pytest.mark.spec("SET-01")
def test_gains_are_those_a_person_would_work_out() -> None:
    flat = history(np.full((3, 40, 96), -1.0))
    attempt = Attempt(share=0.2, quarters=16, days=10)

    def gained(method: object, trick: Trick) -> float:
        found = gains(flat, EVENTS, method, ANY, attempt)  # type: ignore[arg-type]
        return next(one.gained for one in found if one.trick is trick)

    assert gained(AllDays(5, 10), Trick.LIKELY_DAYS) == pytest.approx(0.2)  # all days that are averaged were raised
    diluted = np.mean([10 / day for day in range(20, 40)])  # ten raised days among all that there are
    assert gained(AllDays(5, 40), Trick.LIKELY_DAYS) == pytest.approx(0.2 * diluted)
    assert gained(AllDays(5, 10), Trick.BEFORE_NOTICE) == 0
    assert gained(AllDays(5, 10, SameDay()), Trick.BEFORE_NOTICE) == pytest.approx(0.2)
    assert gained(AllDays(5, 10, SameDay(cap=0.1)), Trick.BEFORE_NOTICE) == pytest.approx(0.1)
    assert gained(MeterBefore(4), Trick.BEFORE_NOTICE) == pytest.approx(0.2)
    assert gained(AllDays(5, 10), Trick.SELECTION) == 0  # flat days leave nothing to choose
    # Its own days raise the scale to its peers by the energy it used more: 10 days, 4 or 8 of 96 quarters.
    own = [0.2 * quarters / 96 for quarters in (4, 8)]
    assert gained(ControlGroup(2, 10, 1), Trick.LIKELY_DAYS) == pytest.approx((4 * own[0] + 8 * own[1]) / 12)


def test_a_unit_that_knows_its_days_gains_by_choosing_them() -> None:
    found = gains(drawn(40, 80), EVENTS, AllDays(10, 45), ANY, Attempt(sold=0.25))
    # The lowest quarter of normal days lies 1.27 standard deviations under the mean.
    assert found[3].gained == pytest.approx(0.2 * 1.271, abs=0.03)
    assert found[3].spent == 0 and found[3].leverage is None


def sales(past: History, days: list[int], below: float = 0.0) -> Sales:
    event = np.tile(np.isin(np.arange(96), range(72, 80)), (len(days), 1))
    metered = past.kw[0, days]
    return Sales(
        tuple(days), np.zeros(len(days), dtype=np.bool_), event, (68,) * len(days), metered - below * np.ones(96)
    )


@pytest.mark.spec("SET-01")
def test_signs_of_gaming_are_told_and_honest_units_are_left_in_peace() -> None:
    days = list(range(40, 60, 2))
    honest = drawn(1, 60, spread=0.05)
    assert signs(honest, "u0", sales(honest, days)) == ()
    raised = honest.kw.copy()
    raised[0, days, 50:68] -= 0.3
    early = replace(honest, kw=raised)
    assert [one.code for one in signs(early, "u0", sales(early, days))] == ["raised_before_notice"]
    likely = honest.kw.copy()
    likely[0, 41:60:2, 72:80] -= 0.3
    between = replace(honest, kw=likely)
    assert [one.code for one in signs(between, "u0", sales(between, days))] == ["raised_on_likely_days"]
    choosy = signs(honest, "u0", sales(honest, days, below=0.2))
    assert [one.code for one in choosy] == ["low_when_sold"] and "u0" in choosy[0].place
    assert signs(honest, "u0", sales(honest, days[:3], below=0.2)) == ()  # three days prove nothing


# ---------------------------------------------------------------- SimBench

LOADS = ("household", "business", "farm", "low-voltage area")


def test_profiles_are_sorted_into_kinds() -> None:
    told = {name: kind_of(name) for name in ("H0-A_pload", "G4-M_pload", "L2-A_pload", "lv_rural1_pload", "PV5_res")}
    assert list(told.values()) == ["household", "business", "farm", "low-voltage area", "photovoltaics"]
    assert kind_of("lv_rural1_res") == "generation of a low-voltage area" and kind_of("x") == "other"
    assert kind_of("APLS_A_3.7_pload") == kind_of("HLS_B_11.0_pload") == "electric vehicle"


@pytest.mark.spec("SET-01")
def test_last_four_days_alike_are_unbiased_on_some_placebo_days_of_simbench(urban: SimbenchGrid) -> None:
    profiles = urban.profiles
    names = [name for name in profiles.names if name.endswith("_pload") and kind_of(name) in LOADS]
    series = Series(tuple(names), profiles.axis, -profiles.rows(names))
    past = history_of(series, {name: kind_of(name) for name in names}, ZONE, UnitCalendar(holidays=HOLIDAYS))
    document = load_method("last_4_alike")
    rows = accuracy(past, Placebo(every=4), document.method, document.days)
    assert {row.kind for row in rows} == {"business", "low-voltage area"}
    assert all(abs(row.bias) <= 0.02 and row.answered == 1 for row in rows)


@pytest.mark.slow
@pytest.mark.spec("SET-01")
def test_baselines_are_unbiased_within_two_percent_on_placebo_days_of_simbench(tmp_path: Path) -> None:
    series, kinds = profile_readings(("1-MV-comm--0-sw", "1-LV-urban6--0-sw", "1-LV-rural1--0-sw"), tmp_path)
    past = history_of(series, kinds, ZONE, UnitCalendar(holidays=HOLIDAYS))
    assert set(kinds.values()) >= {*LOADS, "photovoltaics", "wind"}
    names = ("last_4_alike", "last_10", "last_4_alike_additive", "high_5_of_10", "meter_before")
    found = check(past, [load_method(name) for name in names], Placebo(), None, lambda _: None)

    def off(method: str, rows: object = found.accuracy) -> set[str]:
        return {row.kind for row in rows if row.method == method and not row.unbiased}  # type: ignore[attr-defined]

    # All kinds of load and photovoltaics, one by one and added up: by the method that products take first.
    within = {*LOADS, "photovoltaics", "generation of a low-voltage area"}
    assert not within & (off("last_4_alike") | off("last_4_alike", found.portfolios))
    # What no past day tells, what flowed just before does.
    assert "wind" not in off("meter_before") | off("meter_before", found.portfolios)
    # Loads alone by two others, of which one holds it only for loads added up.
    assert not {*LOADS} & (off("last_10") | off("last_4_alike_additive", found.portfolios))
    # And honestly: high 5 of 10 never holds it, and no average of days tells the wind.
    assert off("high_5_of_10") == off("high_5_of_10", found.portfolios) == set(kinds.values())
    assert "wind" in off("last_4_alike") & off("last_10") & off("last_4_alike_additive")


def test_placebo_days_are_of_all_weekdays() -> None:
    for wrong in ({"every": 7}, {"every": 0}, {"events": ()}, {"events": ((90, 97),)}):
        with pytest.raises(Refused):
            Placebo(**wrong)  # type: ignore[arg-type]
