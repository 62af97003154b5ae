"""The verdict on an answer: exact where the answer is known in closed form, and deaf to luck."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from math import exp, inf, log, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.quantity import Direction
from coflex.domain.reading import Quality
from coflex.qualification.requirements import Requirements, SignalKind
from coflex.qualification.signals import make
from coflex.qualification.verdict import BaselinePoint, Judgement, Recording, judge
from support.tested import (
    BASE,
    CONTAINMENT,
    STARTS,
    bisect,
    by_second_implementation,
    criterion,
    failed,
    first_order,
    limited,
    recording,
    samples,
)

# What only one criterion limits: the others are asked for so mildly that they never decide.
MILD = replace(BASE, full_activation_time_s=7200, ramp_s=7200.0, deactivation_s=7200)
SIGNAL = make(BASE, 500, 0)


def verdict(asked: Requirements, tau: float, interval: int = 1) -> Judgement:
    signal = make(asked, 500, 0)
    return judge(asked, signal, STARTS, first_order(signal, tau, interval))


# ---------------------------------------------------------------- exact, against the closed form


@pytest.mark.spec("REG-07")
@pytest.mark.parametrize(("within", "who"), [(900, "TSO"), (1500, "DSO")])
def test_nine_tenths_of_a_first_order_device_come_after_tau_times_the_logarithm_of_ten(within: int, who: str) -> None:
    asked = replace(MILD, within_s=within)
    flips = bisect(1.0, 5000.0, lambda tau: verdict(asked, tau, 4).passed)
    assert flips == pytest.approx(within / log(10), rel=1e-4)
    slower = verdict(asked, flips * 1.001, 4)
    assert "delivered_share" in failed(slower)
    assert criterion(verdict(asked, 300.0), "delivered_share").measured == pytest.approx(300 * log(10), abs=0.01)


@pytest.mark.spec("REG-07")
def test_the_full_activation_time_flips_where_the_last_percent_of_the_meter_is_reached() -> None:
    asked = replace(MILD, within_s=7200, full_activation_time_s=1800)
    flips = bisect(1.0, 5000.0, lambda tau: verdict(asked, tau, 4).passed)
    assert flips == pytest.approx(1800 / log(100), rel=1e-4)


@pytest.mark.spec("REG-07")
def test_the_ramp_flips_where_a_tenth_to_nine_tenths_take_too_long() -> None:
    asked = replace(MILD, within_s=7200, ramp_s=600.0)
    flips = bisect(1.0, 5000.0, lambda tau: verdict(asked, tau, 4).passed)
    assert flips == pytest.approx(600 / log(9), rel=1e-4)


@pytest.mark.spec("REG-07")
def test_the_deactivation_flips_where_the_last_tenth_is_gone() -> None:
    asked = replace(MILD, within_s=7200, deactivation_s=900, recovery_s=7200)
    signal = make(asked, 500, 0)
    at = criterion(judge(asked, signal, STARTS, first_order(signal, 300.0, 4)), "deactivation")
    # It had reached 1 - exp(-hold / tau) when it was called back, with the hold that the signal has.
    hold = signal.levels[2].at_s - signal.levels[1].at_s
    assert at.measured == pytest.approx(300 * log((1 - exp(-hold / 300)) / 0.1), abs=1e-2)
    flips = bisect(1.0, 5000.0, lambda tau: "deactivation" not in failed(verdict(asked, tau, 4)))
    assert flips == pytest.approx(900 / log(10), rel=1e-3)


@pytest.mark.spec("REG-07")
@pytest.mark.parametrize("tau", [120.0, 385.0, 395.0])
def test_a_second_implementation_of_the_device_is_judged_alike(tau: float) -> None:
    asked = replace(MILD, within_s=900)
    signal = make(asked, 500, 0)
    ours = judge(asked, signal, STARTS, first_order(signal, tau, 60))
    scipys = judge(asked, signal, STARTS, by_second_implementation(signal, tau, 60))
    assert ours.passed is scipys.passed is (tau < 900 / log(10))
    for one, other in zip(ours.criteria, scipys.criteria, strict=True):
        assert (one.name, one.passed) == (other.name, other.passed)
        if one.measured is not None and other.measured is not None:
            assert one.measured == pytest.approx(other.measured, rel=1e-3)


@pytest.mark.spec("REG-07")
def test_a_meter_of_one_minute_finds_the_time_to_a_few_seconds() -> None:
    for tau in (200.0, 300.0, 390.0):
        measured = criterion(verdict(replace(MILD, within_s=900), tau, 60), "delivered_share").measured
        assert measured == pytest.approx(tau * log(10), abs=3.0)


@pytest.mark.spec("REG-07")
def test_a_gain_that_is_too_small_never_delivers_its_share_and_one_too_great_is_no_delivery_either() -> None:
    for gain, passes in ((0.89, False), (0.95, False), (1.0, True), (1.05, True), (1.11, False)):
        judgement = judge(BASE, SIGNAL, STARTS, first_order(SIGNAL, 60.0, 60, gain))
        assert judgement.passed is passes, gain
    little = criterion(judge(BASE, SIGNAL, STARTS, first_order(SIGNAL, 60.0, 60, 0.89)), "delivered_share")
    assert little.measured is None
    assert "never" in little.sentence
    # Between nine tenths and 99 hundredths only the full power is missing.
    assert failed(judge(BASE, SIGNAL, STARTS, first_order(SIGNAL, 60.0, 60, 0.95))) == {"full_activation"}


@pytest.mark.spec("REG-07")
def test_what_is_not_held_long_enough_is_not_delivered() -> None:
    kw = np.array(first_order(SIGNAL, 60.0, 60).kw, dtype=float)
    kw[30] = 0  # one minute out, 1200 s after the order of 600 s
    judgement = judge(BASE, SIGNAL, STARTS, recording(kw, 60))
    late = criterion(judgement, "delivered_share")
    assert "delivered_share" in failed(judgement)
    assert late.measured == pytest.approx(31 * 60 - 600, abs=60)
    assert "held to the end" in late.sentence


@pytest.mark.spec("REG-07")
def test_who_needs_longer_to_recover_fails_the_second_order_alone() -> None:
    asked = replace(BASE, recovery_s=1800)
    signal = make(asked, 500, 0)
    kw = np.array(first_order(signal, 60.0, 60).kw, dtype=float)
    second = signal.levels[3].at_s // 60
    kw[second : second + 20] = 0  # a tank that was still refilling for twenty minutes
    judgement = judge(asked, signal, STARTS, recording(kw, 60))
    assert {"recovery", "delivered_share"} <= failed(judgement)
    assert "after a rest of 1800 s" in criterion(judgement, "recovery").sentence


@pytest.mark.spec("REG-07")
def test_the_sentence_holds_the_numbers() -> None:
    one = criterion(verdict(replace(MILD, within_s=900), 300.0, 60), "delivered_share")
    assert one.sentence == (
        "90%, held to the end, was reached 691.4 s after the order of 500 kW up at 600 s; at most 900 s."
    )
    assert (one.required, one.unit) == (900, "s")


# ---------------------------------------------------------------- baseline


@pytest.mark.spec("REG-07")
@given(level=st.floats(-5000, 5000), tau=st.floats(20, 380))
@settings(deadline=None, max_examples=20)
def test_the_change_counts_and_not_where_it_starts_from(level: float, tau: float) -> None:
    plain = judge(BASE, SIGNAL, STARTS, first_order(SIGNAL, tau, 60))
    lifted = first_order(SIGNAL, tau, 60, baseline=level)
    for baseline in ((), (BaselinePoint(0, level),)):
        assert judge(BASE, SIGNAL, STARTS, lifted, baseline).passed is plain.passed


@pytest.mark.spec("REG-07")
def test_a_nominated_baseline_follows_what_would_have_been() -> None:
    drift = 0.2 * samples(SIGNAL, 60)  # 12 kW more each minute, test or not
    answer = recording(np.array(first_order(SIGNAL, 60.0, 60).kw) + drift + 6, 60)
    nominated = tuple(BaselinePoint(60 * i, float(kw) + 6) for i, kw in enumerate(drift))
    assert judge(BASE, SIGNAL, STARTS, answer, nominated).passed
    assert not judge(BASE, SIGNAL, STARTS, answer).passed


# ---------------------------------------------------------------- integrity


def good() -> Recording:
    return first_order(SIGNAL, 60.0, 60)


def without(answer: Recording, i: int) -> Recording:
    return replace(
        answer, at=answer.at[:i] + answer.at[i + 1 :], kw=answer.kw[:i] + answer.kw[i + 1 :],
        quality=answer.quality[:i] + answer.quality[i + 1 :],
    )  # fmt: skip


def with_value(answer: Recording, i: int, kw: float | None) -> Recording:
    return replace(answer, kw=(*answer.kw[:i], kw, *answer.kw[i + 1 :]))


@pytest.mark.spec("REG-07")
@given(st.data())
@settings(deadline=None, max_examples=60)
def test_no_answer_with_a_hole_passes_wherever_the_hole_is(data: st.DataObject) -> None:
    answer = good()
    i = data.draw(st.integers(0, len(answer.at) - 1))
    bad = data.draw(st.sampled_from(["missing", "none", "nan", "inf", "huge", "estimated", "late", "swapped"]))
    if bad == "missing":
        holed = without(answer, i)
    elif bad == "estimated":
        quality = data.draw(st.sampled_from([Quality.ESTIMATED, Quality.MISSING]))
        holed = replace(answer, quality=(*answer.quality[:i], quality, *answer.quality[i + 1 :]))
    elif bad == "late":
        holed = replace(answer, at=(*answer.at[:i], *(at + timedelta(seconds=7) for at in answer.at[i:])))
    elif bad == "swapped":
        j = min(i, len(answer.at) - 2)
        holed = replace(answer, at=(*answer.at[:j], answer.at[j + 1], answer.at[j], *answer.at[j + 2 :]))
    else:
        holed = with_value(answer, i, {"none": None, "nan": nan, "inf": inf, "huge": 1e12}[bad])
    judgement = judge(BASE, SIGNAL, STARTS, holed)
    assert judge(BASE, SIGNAL, STARTS, answer).passed
    assert not judgement.passed
    assert failed(judgement) & {"values", "quality", "gaps", "clock", "coverage"}


@pytest.mark.spec("REG-07")
def test_an_answer_with_a_hole_is_not_judged_further() -> None:
    judgement = judge(BASE, SIGNAL, STARTS, without(good(), 40))
    assert failed(judgement) == {"gaps", "performance"}
    assert criterion(judgement, "performance").sentence.endswith("test again.")


@pytest.mark.spec("REG-07")
def test_an_answer_that_ends_early_or_begins_late_does_not_cover_the_signal() -> None:
    answer = good()
    assert "coverage" in failed(judge(BASE, SIGNAL, STARTS, without(answer, len(answer.at) - 1)))
    assert "coverage" in failed(judge(BASE, SIGNAL, STARTS, without(answer, 0)))
    assert "coverage" in failed(judge(BASE, SIGNAL, STARTS, Recording((), (), (), "kW", 60.0, 1.0)))


@pytest.mark.spec("REG-07")
def test_columns_of_different_length_are_a_finding_and_no_crash() -> None:
    short = replace(good(), kw=good().kw[:-3])
    assert not judge(BASE, SIGNAL, STARTS, short).passed


@pytest.mark.spec("REG-07")
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"interval_s": 0.0}, "metering_interval"),
        ({"accuracy_percent": 1.5}, "accuracy_class"),
        ({"accuracy_percent": 0.0}, "accuracy_class"),
        ({"unit": "MW"}, "unit_of_measure"),
    ],
)
def test_a_meter_that_is_not_good_enough_fails_by_name(change: dict[str, object], name: str) -> None:
    assert name in failed(judge(BASE, SIGNAL, STARTS, replace(good(), **change)))  # type: ignore[arg-type]


@pytest.mark.spec("REG-07")
def test_a_meter_of_a_quarter_of_an_hour_shows_nothing_of_a_minute() -> None:
    coarse = first_order(make(replace(BASE, interval_s=900), 500, 0), 60.0, 900)
    assert "metering_interval" in failed(judge(BASE, SIGNAL, STARTS, coarse))


@pytest.mark.spec("REG-07")
@pytest.mark.parametrize(("factor", "words"), [(0.001, "MW"), (1000.0, "as if they were W"), (-1.0, "withdrawal")])
def test_a_wrong_factor_is_named(factor: float, words: str) -> None:
    wrong = recording(np.array(good().kw) * factor, 60)
    judgement = judge(BASE, SIGNAL, STARTS, wrong)
    assert not judgement.passed
    assert words in criterion(judgement, "unit_of_measure").sentence


@pytest.mark.spec("REG-07")
def test_nothing_delivered_is_nothing_passed() -> None:
    still = recording(np.zeros(SIGNAL.length_s // 60), 60)
    assert {"delivered_share", "full_activation", "ramp", "sustained_duration", "recovery"} <= failed(
        judge(BASE, SIGNAL, STARTS, still)
    )


# ---------------------------------------------------------------- following: ramp, random, restoration


@pytest.mark.spec("REG-07")
@pytest.mark.parametrize("kind", [SignalKind.RAMP, SignalKind.RANDOM, SignalKind.FOLLOWING])
@pytest.mark.parametrize("directions", [(Direction.UP,), (Direction.DOWN, Direction.UP)])
def test_who_moves_the_whole_quantity_in_the_full_activation_time_follows_and_who_is_slower_does_not(
    kind: SignalKind, directions: tuple[Direction, ...]
) -> None:
    asked = replace(BASE, signal=kind, directions=directions, full_activation_time_s=300, interval_s=4, tick_kw=10,
                    min_duration_s=300, within_s=300)  # fmt: skip
    signal = make(asked, 600, 600 if len(directions) == 2 else 0, seed=11)
    # 600 kW in 300 s are 2 kW/s.
    quick = judge(asked, signal, STARTS, limited(signal, 2.0, 4))
    assert quick.passed, failed(quick)
    slow = judge(asked, signal, STARTS, limited(signal, 1.2, 4))
    if kind is not SignalKind.RAMP:
        assert "following" in failed(slow)
    late = judge(asked, signal, STARTS, limited(signal, 20.0, 4, delay_s=420))
    assert not late.passed


@pytest.mark.spec("REG-07")
def test_the_worst_sample_of_following_is_named_with_its_corridor() -> None:
    asked = replace(BASE, signal=SignalKind.FOLLOWING, full_activation_time_s=300, interval_s=60)
    signal = make(asked, 500, 0, seed=5)
    kw = np.array(first_order(signal, 20.0, 60).kw, dtype=float)
    kw[3] = -120  # three minutes into the quiet before the first order
    worst = criterion(judge(asked, signal, STARTS, recording(kw, 60)), "following")
    base = np.mean(kw[:10])
    # Baseline measured before the order: the mean of ten minutes with that one in it, -12 kW.
    assert base == pytest.approx(-12)
    assert worst.measured == pytest.approx(1 - (120 - 12) / 500, abs=1e-6)
    assert "at 180 s" in worst.sentence


# ---------------------------------------------------------------- frequency containment


@pytest.mark.spec("REG-07")
def test_containment_flips_where_nine_tenths_of_a_step_are_reached_in_half_a_minute() -> None:
    """The first step of the second direction is the hardest: 4/19 of the quantity are asked for, a tenth of that may be
    left after 30 s, and from the full deviation, 60 s before, exp(-60/tau) of the quantity is still there. With
    r = exp(-30/tau):  (4/19 + r^2) r = (4/19) / 10."""
    signal = make(CONTAINMENT, 1000, 1000)

    def passes(tau: float) -> bool:
        return judge(CONTAINMENT, signal, STARTS, first_order(signal, tau, 1)).passed

    (r,) = (root.real for root in np.roots([1, 0, 4 / 19, -0.4 / 19]) if abs(root.imag) < 1e-12)
    assert bisect(0.5, 100.0, passes) == pytest.approx(-30 / log(r), rel=1e-3)


@pytest.mark.spec("REG-07")
def test_containment_that_begins_late_fails_by_its_delay() -> None:
    signal = make(CONTAINMENT, 1000, 1000)
    prompt = judge(CONTAINMENT, signal, STARTS, limited(signal, 200.0, 1, delay_s=1))
    assert prompt.passed, failed(prompt)
    late = judge(CONTAINMENT, signal, STARTS, limited(signal, 200.0, 1, delay_s=4))
    assert failed(late) == {"delay"}
    measured = criterion(late, "delay").measured
    assert measured == pytest.approx(4.5, abs=0.6)


@pytest.mark.spec("REG-07")
def test_containment_that_comes_all_at_the_end_fails_half_way() -> None:
    signal = make(CONTAINMENT, 1000, 1000)
    seconds = samples(signal, 1)
    asked, late = signal.change_at(seconds), signal.change_at(np.maximum(seconds - 20, 0))
    # A fifth at once, the rest after 20 s: in time for the whole, too late for the half that is due after 15 s.
    judgement = judge(CONTAINMENT, signal, STARTS, recording(0.2 * asked + 0.8 * late, 1))
    assert failed(judgement) == {"half_activation"}
    assert criterion(judgement, "half_activation").measured == pytest.approx(20, abs=1)


@pytest.mark.spec("REG-07")
@pytest.mark.parametrize(("gain", "passes"), [(0.89, False), (0.92, True), (1.0, True), (1.08, True), (1.12, False)])
def test_containment_with_another_droop_fails(gain: float, passes: bool) -> None:
    signal = make(CONTAINMENT, 1000, 1000)
    judgement = judge(CONTAINMENT, signal, STARTS, first_order(signal, 2.0, 1, gain))
    assert judgement.passed is passes
    share = criterion(judgement, "droop_share").measured
    assert share == pytest.approx(1 - abs(1 - gain), abs=1e-3)


# ---------------------------------------------------------------- laws


@pytest.mark.spec("REG-07")
@given(tau=st.floats(10, 2000), faster=st.floats(0.05, 1.0))
@settings(deadline=None, max_examples=30)
def test_a_faster_device_never_fails_where_a_slower_one_passes(tau: float, faster: float) -> None:
    slow = judge(BASE, SIGNAL, STARTS, first_order(SIGNAL, tau, 60))
    quick = judge(BASE, SIGNAL, STARTS, first_order(SIGNAL, tau * faster, 60))
    assert quick.passed or not slow.passed


@pytest.mark.spec("REG-07")
def test_the_same_answer_gives_the_same_verdict_to_the_last_digit() -> None:
    answer = first_order(SIGNAL, 377.0, 60)
    assert judge(BASE, SIGNAL, STARTS, answer) == judge(BASE, SIGNAL, STARTS, answer)


@pytest.mark.spec("REG-07")
def test_a_verdict_is_passed_only_if_every_criterion_is() -> None:
    for tau in (60.0, 500.0, 5000.0):
        judgement = judge(BASE, SIGNAL, STARTS, first_order(SIGNAL, tau, 60))
        assert judgement.passed is all(one.passed for one in judgement.criteria)
        assert all(one.sentence for one in judgement.criteria)
