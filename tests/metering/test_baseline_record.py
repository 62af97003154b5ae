"""From readings to a record: why days were passed over, what was read, and what a corrected reading touches."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, delivery_day, midnight
from coflex.metering.baselines.compute import Asked, compute
from coflex.metering.baselines.document import MethodDocument, load_method, methods
from coflex.metering.baselines.record import BaselineRecord, Span, differences, touched
from coflex.metering.eligibility import DayRule, Like, Passed, UnitCalendar, day_type, judge_days

ROME = ZoneInfo("Europe/Rome")
DAY, BACK = date(2016, 7, 5), 30
AXIS = Axis(midnight(DAY - timedelta(days=BACK), ROME), 96 * (BACK + 1))
UNITS = ("a", "b", "c", "d", "e")
START = midnight(DAY, ROME) + timedelta(hours=18)
ASKED = Asked("a", START, START + timedelta(hours=2), START - timedelta(hours=2), peers=UNITS, log_size=77)

# How long a machine takes is no matter of these laws.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@lru_cache
def drawn(seed: int = 0) -> Series:
    rng = np.random.default_rng(seed)
    shape = 2 + np.sin(np.arange(96) / 15)
    values = -np.stack([size * (shape * rng.uniform(0.5, 1.5, (BACK + 1, 1))).ravel() for size in (1, 2, 3, 4, 5)])
    values += rng.normal(0, 0.05, values.shape)
    values[rng.random(values.shape) < 0.001] = np.nan
    return Series(UNITS, AXIS, values)


def temperature(seed: int = 0) -> Floats:
    return np.random.default_rng(seed).uniform(-5, 35, len(AXIS))


def made(readings: Series, name: str, **more: object) -> BaselineRecord:
    asked = replace(ASKED, nomination=np.full(96, -2.0), contracted_kw=-3.0, **more)  # type: ignore[arg-type]
    return compute(readings, ROME, asked, load_method(name), temperature())


def same(one: BaselineRecord, other: BaselineRecord) -> bool:
    """Equal to the bit; a value that is none equals another that is none."""
    return repr(asdict(one)) == repr(asdict(other))


def altered(readings: Series, unit: int, where: slice, by: float) -> Series:
    values = readings.values.copy()
    values[unit, where] = np.where(np.isnan(values[unit, where]), -1.0, values[unit, where] + by)
    return Series(readings.names, readings.axis, values)


# ---------------------------------------------------------------- laws


@pytest.mark.spec("SET-01")
@pytest.mark.parametrize("name", methods())
@settings(CALM, max_examples=15)
@given(
    st.integers(0, 3),
    st.integers(0, len(UNITS) - 1),
    st.integers(0, len(AXIS) - 1),
    st.integers(1, 8),
    st.sampled_from([1.0, -40.0, float("nan")]),
)
def test_a_corrected_reading_changes_the_baselines_it_touches_and_no_other(
    name: str, seed: int, unit: int, first: int, count: int, by: float
) -> None:
    before = made(drawn(seed), name)
    changed = Span(UNITS[unit], AXIS.start + first * QUARTER, AXIS.start + (first + count) * QUARTER)
    if not touched([before], [changed]):
        assert same(made(altered(drawn(seed), unit, slice(first, first + count), by), name), before)


@pytest.mark.spec("SET-01")
@pytest.mark.parametrize("name", methods())
def test_nothing_metered_after_a_baseline_was_known_changes_it(name: str) -> None:
    record = made(drawn(), name)
    assert all(span.end <= record.known_at for span in record.read)
    after = AXIS.position(record.known_at) if record.known_at < AXIS.end else len(AXIS)
    for unit in range(len(UNITS)):
        assert same(made(altered(drawn(), unit, slice(after, None), -9.0), name), record)
    # What is known before the event is not moved by the event itself; what is not, is at most known at its end or with
    # the window after it.
    assert record.ex_ante == (record.known_at <= START)


@pytest.mark.spec("SET-01")
@pytest.mark.parametrize("name", methods())
def test_a_reading_altered_after_the_event_changes_nothing_before_it(name: str) -> None:
    end = AXIS.position(START + timedelta(hours=2))
    before = made(drawn(), name)
    for unit in range(len(UNITS)):
        after = made(altered(drawn(), unit, slice(end, None), -9.0), name)
        if name in ("meter_before_after", "meter_linear"):  # they read the hour after by their nature, and say so
            assert touched([before], [Span("a", START + timedelta(hours=2), AXIS.end)]) and not before.ex_ante
        else:
            assert same(after, before)


def test_each_reading_that_was_averaged_does_touch_its_baseline() -> None:
    record = made(drawn(), "last_10")
    for day in record.days:
        at = AXIS.position(midnight(day, ROME))
        assert touched([record], [Span("a", AXIS[at], AXIS[at + 1])]) == (record,)
        assert not same(made(altered(drawn(), 0, slice(at, at + 1), -1.0), "last_10"), record)
    assert touched([record], [Span("b", AXIS.start, AXIS.end)]) == ()


def test_a_reading_that_comes_late_brings_its_day_back() -> None:
    values = drawn().values.copy()
    gap = AXIS.position(midnight(DAY - timedelta(days=1), ROME)) + 5
    values[0, gap] = np.nan
    record = made(Series(UNITS, AXIS, values), "last_10")
    assert dict(record.passed)[DAY - timedelta(days=1)] is Passed.MISSING
    assert touched([record], [Span("a", AXIS[gap], AXIS[gap + 1])]) == (record,)
    assert DAY - timedelta(days=1) in made(drawn(), "last_10").days


def test_a_correction_run_posts_the_differences_only() -> None:
    before = made(drawn(), "last_10")
    at = AXIS.position(midnight(before.days[0], ROME)) + 40
    after = made(altered(drawn(), 0, slice(at, at + 1), -10.0), "last_10")
    (moved,) = differences(before, after, QUARTER)
    assert moved.start == midnight(DAY, ROME) + 40 * QUARTER
    assert moved.after_kw == pytest.approx(moved.before_kw - 1.0)  # type: ignore[operator]
    assert differences(before, before, QUARTER) == ()
    empty = replace(before, values_kw=())
    assert len(differences(before, empty, QUARTER)) == 96
    with pytest.raises(CoflexError):
        differences(before, replace(before, unit="b"), QUARTER)


# ---------------------------------------------------------------- what is kept


@pytest.mark.spec("SET-01")
def test_a_record_names_all_that_is_needed_to_compute_it_again() -> None:
    record, document = made(drawn(), "last_4_alike_additive"), load_method("last_4_alike_additive")
    assert (record.method, record.version, record.fingerprint) == (document.id, 1, document.fingerprint)
    assert (record.unit, record.day, record.log_size, record.note) == ("a", DAY, 77, "")
    assert len(record.days) == 4 and record.adjustment is not None
    assert record.known_at == START - timedelta(hours=2) and record.ex_ante
    window = Span("a", START - timedelta(hours=5), START - timedelta(hours=2))
    assert window in record.read
    assert set(record.days) | set(dict(record.passed)) == {DAY - timedelta(days=k) for k in range(1, BACK + 1)}
    assert same(made(drawn(), "last_4_alike_additive"), record)


@pytest.mark.spec("SET-01")
def test_every_day_that_was_not_taken_has_its_reason() -> None:
    day = date(2016, 5, 12)
    days = [day + timedelta(days=k) for k in range(-13, 2)]
    calendar = UnitCalendar(
        events=frozenset({date(2016, 5, 10)}),
        outages=frozenset({date(2016, 5, 9)}),
        holidays=frozenset({date(2016, 5, 5)}),
        since=date(2016, 5, 2),
    )
    whole = np.array([one != date(2016, 5, 6) for one in days])
    told = dict(zip(days, judge_days(days, day, DayRule(Like.TWO, 12), calendar, whole), strict=True))
    assert {one.day: why for one, why in told.items() if why and one.month == 5} == {
        1: Passed.NOT_YET, 5: Passed.HOLIDAY, 6: Passed.MISSING, 7: Passed.OTHER_TYPE, 8: Passed.OTHER_TYPE,
        9: Passed.OUTAGE, 10: Passed.EVENT, 12: Passed.NOT_EARLIER, 13: Passed.NOT_EARLIER,
    }  # fmt: skip
    assert told[date(2016, 4, 29)] is Passed.TOO_OLD and told[date(2016, 4, 30)] is Passed.NOT_YET
    assert [one for one in days if told[one] is None] == [date(2016, 5, k) for k in (2, 3, 4, 11)]


def test_day_types() -> None:
    week = [date(2016, 7, 4) + timedelta(days=k) for k in range(7)]
    holiday = {date(2016, 7, 6)}
    assert [day_type(day, Like.TWO, holiday) for day in week] == [0, 0, 1, 0, 0, 1, 1]
    assert [day_type(day, Like.THREE, holiday) for day in week] == [0, 0, 2, 0, 0, 1, 2]
    assert [day_type(day, Like.WEEKDAY, holiday) for day in week] == [0, 1, 6, 3, 4, 5, 6]
    assert {day_type(day, Like.ANY, holiday) for day in week} == {0}


def test_days_are_ranked_out_or_not_needed_and_it_is_told_which() -> None:
    calendar = UnitCalendar(events=frozenset({DAY - timedelta(days=1)}))
    record = compute(drawn(), ROME, replace(ASKED, calendar=calendar), load_method("high_5_of_10"))
    why = dict(record.passed)
    assert why[DAY - timedelta(days=1)] is Passed.EVENT
    assert sum(reason is Passed.NOT_PICKED for reason in why.values()) == 5
    oldest = min(day for day, reason in why.items() if reason is Passed.NOT_PICKED or day in record.days)
    assert all(day < oldest for day, reason in why.items() if reason is Passed.NOT_NEEDED)


@pytest.mark.spec("SET-01")
@pytest.mark.parametrize(("day", "quarters"), [(date(2016, 3, 27), 92), (date(2016, 10, 30), 100)])
def test_days_on_which_the_clock_changes_have_their_own_number_of_quarters(day: date, quarters: int) -> None:
    first = midnight(day - timedelta(days=30), ROME)
    axis = Axis(first, (delivery_day(day, ROME).end - first) // QUARTER)
    clock = np.array([instant.astimezone(ROME).hour for instant in axis], dtype=np.float64)
    start = datetime(day.year, day.month, day.day, 17, tzinfo=ROME).astimezone(UTC)
    asked = Asked("a", start, start + timedelta(hours=1), start)
    record = compute(Series(("a",), axis, -clock[None, :]), ROME, asked, load_method("last_4_alike"))
    assert len(record.values_kw) == quarters
    hours = [instant.astimezone(ROME).hour for instant in delivery_day(day, ROME)]
    assert record.values_kw == pytest.approx([-hour for hour in hours])


def test_an_event_across_midnight_and_an_unknown_unit_are_refused() -> None:
    with pytest.raises(CoflexError, match="local day"):
        compute(drawn(), ROME, replace(ASKED, end=START + timedelta(hours=7)), load_method("zero"))
    with pytest.raises(CoflexError, match="local day"):
        compute(drawn(), ROME, replace(ASKED, end=START), load_method("zero"))
    with pytest.raises(CoflexError, match="series"):
        compute(drawn(), ROME, replace(ASKED, unit="z"), load_method("zero"))


def test_a_day_that_is_still_running_is_metered_as_far_as_it_is() -> None:
    short = drawn().window(AXIS.window(AXIS.start, START - timedelta(hours=2)))
    document: MethodDocument = load_method("last_4_alike_additive")
    asked = replace(ASKED, peers=())
    assert same(compute(short, ROME, asked, document), compute(drawn(), ROME, asked, document))
