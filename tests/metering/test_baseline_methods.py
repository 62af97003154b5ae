"""Every family of baselines against the formula written out in plain Python, a second library, or a law."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import lstsq

from coflex.domain.errors import CoflexError, Refused
from coflex.domain.quantity import Floats
from coflex.metering.baselines import (
    Adjust,
    AllDays,
    Between,
    Compare,
    ContractedMaximum,
    ControlGroup,
    Given,
    Match,
    MeterBefore,
    Nominated,
    Peers,
    Per,
    Pick,
    Regression,
    Rolling,
    SameDay,
    Temperature,
    Weather,
    XofY,
    Zero,
    baseline,
    known,
    within_contract,
)
from coflex.metering.baselines.agreed import nomination_errors
from coflex.metering.baselines.method import Method

QUARTERS, DAYS, FIRST, LAST = 24, 8, 16, 19
EVENT = np.isin(np.arange(QUARTERS), range(FIRST, LAST + 1))
kilowatts = st.floats(-1e3, 1e3, allow_subnormal=False)
histories = arrays(np.float64, (DAYS, QUARTERS), elements=kilowatts)
todays = arrays(np.float64, QUARTERS, elements=kilowatts)
SAME_DAY = SameDay(quarters=4)
BY_HISTORY: Sequence[Method] = (
    XofY(3, 5),
    XofY(3, 5, Pick.MID, SAME_DAY),
    XofY(2, 6, Pick.LOW, SameDay(Adjust.SCALAR, quarters=4)),
    AllDays(2, 6),
    AllDays(2, 6, SAME_DAY),
    Rolling(0.9, 2, 6),
    Rolling(0.5, 2, 6, SameDay(Adjust.SCALAR, quarters=4)),
    MeterBefore(4),
    MeterBefore(4, 2),
    MeterBefore(4, 2, Between.LINEAR),
    Regression(days=6, least=2, heating=None, cooling=None, day_type=False),
)

# How long a machine takes is no matter of these laws.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def of(history: Floats, today: Floats, method: Method, notice: int = FIRST, **more: object) -> Floats:
    there = np.ones(len(history), dtype=np.bool_)
    return baseline(Given(EVENT, notice, history, there, today, **more), method).values  # type: ignore[arg-type]


# ---------------------------------------------------------------- laws of all


@pytest.mark.spec("SET-01")
@pytest.mark.parametrize("method", BY_HISTORY, ids=lambda method: method.label)
@settings(CALM, max_examples=25)
@given(history=histories, today=todays, factor=st.sampled_from([0.25, 2.0, 64.0]))
def test_scaled_power_gives_the_scaled_baseline(method: Method, history: Floats, today: Floats, factor: float) -> None:
    assert of(factor * history, factor * today, method) == pytest.approx(
        factor * of(history, today, method), rel=1e-9, abs=1e-6
    )


@pytest.mark.spec("SET-01")
@pytest.mark.parametrize("method", BY_HISTORY, ids=lambda method: method.label)
@settings(CALM, max_examples=25)
@given(history=histories, today=todays)
def test_mirrored_power_gives_the_mirrored_baseline(method: Method, history: Floats, today: Floats) -> None:
    if abs(history[-6:, EVENT].mean(axis=1).sum()) > 1e-6 and abs(history[-5:, EVENT].mean(axis=1).sum()) > 1e-6:
        assert of(-history, -today, method) == pytest.approx(-of(history, today, method), rel=1e-9, abs=1e-6)


@settings(CALM, max_examples=50)
@given(histories, st.permutations(range(DAYS)))
def test_the_order_of_days_says_nothing_where_age_does_not_count(history: Floats, order: list[int]) -> None:
    today = np.zeros(QUARTERS)
    for method in (AllDays(2, DAYS), Regression(days=DAYS, least=2, heating=None, cooling=None, day_type=False)):
        assert of(history[order], today, method) == pytest.approx(of(history, today, method), rel=1e-9, abs=1e-6)


@settings(CALM, max_examples=50)
@given(histories, todays, st.sampled_from([SAME_DAY, SameDay(Adjust.SCALAR, quarters=4, cap=0.1)]))
def test_no_adjustment_goes_beyond_its_cap(history: Floats, today: Floats, rule: SameDay) -> None:
    for plain, moved in ((AllDays(2, 6), AllDays(2, 6, rule)), (Rolling(0.9, 2, 6), Rolling(0.9, 2, 6, rule))):
        before, after = of(history, today, plain), of(history, today, moved)
        least = rule.cap * abs(before[EVENT].mean()) if rule.kind is Adjust.ADDITIVE else rule.cap * abs(before)
        assert (abs(after - before) <= least + 1e-6).all()


@pytest.mark.spec("SET-01")
def test_every_method_says_when_it_can_be_known() -> None:
    told = {known(method) for method in (Nominated(), Zero(), ContractedMaximum(), XofY(3, 5), Rolling(), AllDays())}
    assert told == {"ex ante"}
    assert known(XofY(3, 5, Pick.HIGH, SAME_DAY)) == known(MeterBefore(4)) == "at notice"
    assert known(MeterBefore(4, 4)) == known(ControlGroup()) == "ex post"
    assert known(Regression()) == "ex ante"
    assert known(Regression(temperature=Temperature.MEASURED)) == "ex post"
    assert known(Regression(heating=None, cooling=None, temperature=Temperature.MEASURED)) == "ex ante"


# ---------------------------------------------------------------- agreed


@pytest.mark.spec("SET-01")
def test_what_is_agreed_beforehand_reads_no_meter() -> None:
    given = Given(EVENT, 0, nomination=np.arange(24.0), contracted_kw=-500.0)
    assert (baseline(given, Zero()).values == 0).all()
    assert (baseline(given, ContractedMaximum()).values == -500).all()
    assert (baseline(given, Nominated()).values == np.arange(24)).all()
    for method in (Nominated(), ContractedMaximum()):
        nothing = baseline(Given(EVENT, 0), method)
        assert not nothing.enough and np.isnan(nothing.values).all() and nothing.note


@pytest.mark.parametrize("method", [Nominated(), MeterBefore()])
def test_what_is_given_for_another_day_does_not_fit(method: Method) -> None:
    """A schedule of 96 quarter-hours on the day of 92, say."""
    event, other = np.arange(92) == 60, np.zeros(96)
    for asked in (Given(event, 60, nomination=other), Given(event, 60, today=other)):
        with pytest.raises(CoflexError, match="different days"):
            baseline(asked, method)


def test_a_drop_to_contract_is_kept_by_drawing_no_more_than_its_power() -> None:
    metered = np.full(QUARTERS, -900.0)
    metered[EVENT] = [-500.0, -499.0, -501.0, np.nan]
    assert within_contract(-500.0, metered, EVENT).tolist() == [True, True, False, False]
    assert within_contract(500.0, -metered, EVENT).tolist() == [True, True, False, False]


def test_errors_of_nominations_pass_over_what_was_not_metered() -> None:
    assert nomination_errors(np.array([1.0, 3.0, 9.0]), np.array([2.0, 2.0, np.nan])) == (0.5, 0.0)
    assert nomination_errors(np.array([1.0]), np.array([np.nan])) == (0.0, 0.0)
    assert nomination_errors(np.array([1.0]), np.array([0.0])) == (np.inf, np.inf)
    worse = Given(EVENT, 0, nomination=np.ones(24), nominated_before=(np.full(4, 3.0), np.full(4, 2.0)))
    assert "erred by 50%" in baseline(worse, Nominated()).note


# ---------------------------------------------------------------- averages of days


@settings(CALM, max_examples=50)
@given(histories, st.floats(0, 0.99))
def test_a_rolling_average_forgets_at_its_weight(history: Floats, weight: float) -> None:
    levels = [float(power) for power in history[2]]
    for day in history[3:].tolist():
        levels = [weight * level + (1 - weight) * power for level, power in zip(levels, day, strict=True)]
    made = of(history, np.zeros(QUARTERS), Rolling(weight, 2, 6))
    assert made == pytest.approx(levels, rel=1e-9, abs=1e-9)


def test_all_days_takes_those_there_are_and_no_fewer_than_it_needs() -> None:
    history = np.outer(np.arange(8.0), np.ones(QUARTERS))
    assert of(history, np.zeros(QUARTERS), AllDays(2, 4))[0] == pytest.approx(5.5)
    assert of(history, np.zeros(QUARTERS), AllDays(2, 45))[0] == pytest.approx(3.5)
    few = baseline(Given(EVENT, 0, history, np.arange(8) == 3), AllDays(2, 45))
    assert not few.enough and few.note == "1 days of 2 that are needed"


@pytest.mark.spec("SET-01")
def test_the_line_goes_through_the_middles_of_both_windows() -> None:
    today = 3.0 * np.arange(QUARTERS) - 7
    made = baseline(Given(EVENT, FIRST, today=today), MeterBefore(4, 4, Between.LINEAR))
    assert made.values[FIRST : LAST + 1] == pytest.approx(today[EVENT])  # a straight day is its own baseline
    assert made.known_at == LAST + 1 + 4
    assert made.values[0] == pytest.approx(today[12:16].mean())
    rested = baseline(Given(EVENT, FIRST, today=today), MeterBefore(2, 2, Between.MEAN, rest=2))
    assert rested.values[FIRST] == pytest.approx((today[14:16].mean() + today[22:24].mean()) / 2)


# ---------------------------------------------------------------- control group


def plain_control(own: Floats, peers: Floats, today: Floats, size: int, difference: bool) -> list[float]:
    """Equations 7 and 8 written out."""
    days, quarters = own.shape
    mean = [sum(own[d, t] for d in range(days)) / days for t in range(quarters)]

    def shape(profile: list[float]) -> list[float]:
        level = sum(abs(p) for p in profile) / quarters
        return [p / level for p in profile]

    profiles = [[sum(peer[d, t] for d in range(days)) / days for t in range(quarters)] for peer in peers]
    far = [sum((a - b) ** 2 for a, b in zip(shape(p), shape(mean), strict=True)) for p in profiles]
    chosen = sorted(sorted(range(len(peers)), key=lambda p: (far[p], p))[:size])
    before = [sum(profiles[p][t] for p in chosen) / len(chosen) for t in range(quarters)]
    now = [sum(today[p][t] for p in chosen) / len(chosen) for t in range(quarters)]
    ratio = sum(mean) / sum(before)
    if difference:
        return [mean[t] + ratio * (now[t] - before[t]) for t in range(quarters)]
    return [ratio * now[t] for t in range(quarters)]


@pytest.mark.spec("SET-01")
@pytest.mark.parametrize("compare", list(Compare))
def test_a_control_group_is_the_formula_written_out(compare: Compare) -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        own, peers, today = -rng.random((5, 8)) - 0.1, -rng.random((6, 5, 8)) - 0.1, -rng.random((6, 8)) - 0.1
        event, there = np.arange(8) == 6, np.ones(5, dtype=np.bool_)
        given = Given(event, 0, own, there, None, peers=Peers(peers, today, np.ones(6, dtype=np.bool_)))
        made = baseline(given, ControlGroup(size=3, days=5, least=2, compare=compare))
        plain = plain_control(own, peers, today, 3, compare is Compare.DIFFERENCE)
        assert made.values[:7] == pytest.approx(plain[:7], rel=1e-12)
        assert made.values[7] == pytest.approx(own[:, 7].mean())  # after the event nothing is told by the peers
        assert made.known_at == 7 and len(made.peers) == 3


@pytest.mark.spec("SET-01")
def test_a_unit_that_moves_like_its_peers_gets_what_it_would_have_done() -> None:
    shape = -1 - np.sin(np.arange(QUARTERS) / 4) ** 2
    days = np.linspace(0.8, 1.2, DAYS)
    history = np.outer(days, shape)
    peers = Peers(
        np.stack([history * size for size in (2.0, 5.0, 3.0, 40.0)]),
        np.outer([2.0, 5.0, 3.0, 40.0], 1.7 * shape),  # a day unlike all before it
        np.array([True, True, True, False]),
    )
    there = np.ones(DAYS, dtype=np.bool_)
    for compare in Compare:
        for match in Match:
            method = ControlGroup(size=3, days=8, least=3, compare=compare, match=match)
            made = baseline(Given(EVENT, 0, 4 * history, there, None, peers=peers), method)
            assert made.peers == (0, 1, 2)
            assert made.values[EVENT] == pytest.approx(4 * 1.7 * shape[EVENT])


def test_peers_that_were_called_or_not_metered_do_not_count() -> None:
    history = np.full((DAYS, QUARTERS), -1.0)
    today = np.full((4, QUARTERS), -1.0)
    today[0, FIRST] = np.nan
    peers = Peers(np.stack([history] * 4), today, np.array([True, False, True, True]))
    there = np.ones(DAYS, dtype=np.bool_)
    given = Given(EVENT, 0, history, there, None, peers=peers)
    assert baseline(given, ControlGroup(least=2)).peers == (2, 3)
    assert baseline(given, ControlGroup(least=3)).note == "2 peers of 3 that are needed"
    assert baseline(Given(EVENT, 0, history, there), ControlGroup()).note == "no peers are given"
    flat = Peers(np.zeros((4, DAYS, QUARTERS)), today, np.ones(4, dtype=np.bool_))
    assert not baseline(Given(EVENT, 0, history, there, peers=flat), ControlGroup(least=2, match=Match.ALL)).enough


# ---------------------------------------------------------------- regression


def weather_days(seed: int, days: int = 30) -> tuple[Floats, Floats]:
    """Temperatures of days on both sides of the breakpoints, and which of them are working days."""
    rng = np.random.default_rng(seed)
    temperature = rng.uniform(-5, 35, (days, 1)) + rng.normal(0, 2, (days, QUARTERS))
    return temperature, (np.arange(days) % 7 < 5).astype(np.float64)


@pytest.mark.spec("SET-01")
@pytest.mark.parametrize("per", list(Per))
def test_a_load_that_follows_the_model_is_told_exactly(per: Per) -> None:
    temperature, working = weather_days(1)
    level = -np.repeat(np.arange(1.0, 7.0), 4)

    def load(t: Floats, works: Floats) -> Floats:
        return level - 0.5 * np.maximum(0, 15 - t) - 0.25 * np.maximum(0, t - 22) - 3 * works[:, None]

    today = np.full(QUARTERS, 3.0)
    given = Given(
        EVENT, 0, load(temperature, working), np.ones(30, dtype=np.bool_),
        weather=Weather(temperature, today), working=working > 0, works_today=False,
    )  # fmt: skip
    made = baseline(given, Regression(per=per))
    assert made.values == pytest.approx(load(today[None, :], np.zeros(1))[0], rel=1e-9)
    assert (made.note, made.known_at, len(made.days)) == ("", 0, 30)
    assert baseline(given, Regression(per=per, temperature=Temperature.MEASURED)).known_at == LAST + 1


@pytest.mark.spec("SET-01")
@pytest.mark.parametrize("seed", range(5))
def test_least_squares_agrees_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    temperature, working = weather_days(seed)
    history, today = rng.normal(-100, 20, (30, QUARTERS)), rng.uniform(-5, 35, QUARTERS)
    given = Given(
        EVENT, 0, history, np.ones(30, dtype=np.bool_),
        weather=Weather(temperature, today), working=working > 0, works_today=True,
    )  # fmt: skip
    made = baseline(given, Regression(per=Per.QUARTER)).values
    for t in range(QUARTERS):
        past = temperature[:, t]
        columns = np.column_stack([np.ones(30), np.maximum(0, 15 - past), np.maximum(0, past - 22), working])
        solution = lstsq(columns, history[:, t])[0]
        now = np.array([1.0, max(0, 15 - today[t]), max(0, today[t] - 22), 1.0])
        assert made[t] == pytest.approx(now @ solution, rel=1e-9)


@pytest.mark.spec("SET-01")
def test_a_rank_that_is_not_full_is_told_and_a_day_unlike_all_others_gets_no_baseline() -> None:
    temperature = np.full((30, QUARTERS), 25.0) + np.arange(30)[:, None] / 10  # a summer: nothing to learn of heating
    working = np.arange(30) % 7 < 5
    history = np.full((30, QUARTERS), -10.0)
    there = np.ones(30, dtype=np.bool_)

    def on(degrees: float) -> Given:
        weather = Weather(temperature, np.full(QUARTERS, degrees))
        return Given(EVENT, 0, history, there, weather=weather, working=working)

    warm = baseline(on(26.0), Regression())
    assert warm.enough and warm.values == pytest.approx(np.full(QUARTERS, -10.0))
    assert warm.note == "rank below 4 (level, heating, cooling, working day) in 24 of 24 groups"
    cold = baseline(on(5.0), Regression())
    assert not cold.enough and np.isnan(cold.values).all() and "rank below 4" in cold.note


def test_a_regression_says_what_it_lacks() -> None:
    history, there = np.zeros((30, QUARTERS)), np.ones(30, dtype=np.bool_)
    weather = Weather(np.zeros((30, QUARTERS)), np.full(QUARTERS, np.nan))
    working = np.ones(30, dtype=np.bool_)
    assert baseline(Given(EVENT, 0, history, there), Regression()).note == "no temperature is given"
    assert "gap" in baseline(Given(EVENT, 0, history, there, weather=weather), Regression()).note
    plain = Regression(heating=None, cooling=None)
    assert "working days" in baseline(Given(EVENT, 0, history, there), plain).note
    few = Given(EVENT, 0, history, np.arange(30) < 3, working=working)
    assert baseline(few, plain).note == "3 days of 10 that are needed"
    with pytest.raises(CoflexError, match="fit"):
        baseline(Given(EVENT, 0, history, there[:5], working=working), plain)


def test_impossible_methods_are_refused() -> None:
    for make in (
        lambda: ControlGroup(size=2, least=3),
        lambda: ControlGroup(days=0),
        lambda: Regression(least=1),
        lambda: Regression(heating=25.0, cooling=20.0),
        lambda: Rolling(weight=1.0),
        lambda: Rolling(least=9, most=8),
        lambda: AllDays(least=0),
        lambda: MeterBefore(4, 0, Between.LINEAR),
        lambda: Nominated(absolute_error=float("nan")),
    ):
        with pytest.raises(Refused):
            make()
