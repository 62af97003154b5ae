"""Test signals are made of the product's attributes, and of nothing else but a seed."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.quantity import Direction
from coflex.domain.unit import Scope
from coflex.qualification.requirements import (
    Procedure,
    Requirements,
    Service,
    SignalKind,
    requirements,
    usual_procedure,
)
from coflex.qualification.signals import drawn, droop_kw, faults, make
from support.tested import BASE, CONTAINMENT, product

BOTH = (Direction.DOWN, Direction.UP)


def asked(kind: SignalKind, **more: object) -> Requirements:
    base = CONTAINMENT if kind is SignalKind.FREQUENCY else replace(BASE, signal=kind)
    return replace(base, **more)  # type: ignore[arg-type]


@pytest.mark.spec("REG-07")
def test_a_step_holds_what_is_to_be_reached_and_held_and_comes_again_after_the_recovery() -> None:
    wanted = replace(BASE, recovery_s=3600)
    signal = make(wanted, 500, 0)
    # Ten intervals of quiet; 1800 s to full power, 900 s held, two intervals to spare; an hour; again; 900 s back.
    hold = 1800 + 900 + 120
    assert [(one.at_s, one.change_kw) for one in signal.levels] == [
        (0, 0.0),
        (600, 500),
        (600 + hold, 0.0),
        (600 + hold + 3600, 500),
        (600 + 2 * hold + 3600, 0.0),
    ]
    assert signal.length_s == 600 + 2 * hold + 3600 + 900 + 120


@pytest.mark.spec("REG-07")
def test_a_product_of_both_directions_is_tested_in_both() -> None:
    signal = make(asked(SignalKind.STEP, directions=BOTH), 500, 300)
    assert [one.change_kw for one in signal.levels if one.change_kw] == [-300, -300, 500, 500]


@pytest.mark.spec("REG-07")
def test_a_ramp_rises_evenly_in_twice_the_full_activation_time() -> None:
    signal = make(asked(SignalKind.RAMP), 500, 0)
    levels = [one for one in signal.levels if one.change_kw]
    top = next(i for i, one in enumerate(levels) if one.change_kw == 500)
    rise = np.diff([0.0, *(one.change_kw for one in levels[: top + 1])])
    assert np.allclose(rise, 500 / 60)  # 2 * 1800 s in steps of one minute
    assert levels[top].at_s - levels[0].at_s == 3600 - 60


@pytest.mark.spec("REG-07")
@given(seed=st.integers(0, 2**63), kind=st.sampled_from([SignalKind.RANDOM, SignalKind.FOLLOWING]))
def test_random_set_points_come_from_the_seed_alone(seed: int, kind: SignalKind) -> None:
    wanted = asked(kind, directions=BOTH, tick_kw=10)
    signal = make(wanted, 500, 300, seed)
    assert signal == make(wanted, 500, 300, seed)
    assert signal.seed == seed
    changes = [one.change_kw for one in signal.levels]
    assert all(kw % 10 == 0 and -300 <= kw <= 500 for kw in changes)
    assert all(now != before or now == 0 for before, now in pairwise(changes))
    assert 500 in changes and -300 in changes


def test_the_numbers_of_a_seed_can_be_checked_by_hand() -> None:
    first = int(sha256(b"7:0").hexdigest()[:16], 16) % 1000
    assert drawn(7, 0, 1000) == first


def test_another_seed_gives_other_set_points() -> None:
    assert make(asked(SignalKind.RANDOM), 500, 0, 1) != make(asked(SignalKind.RANDOM), 500, 0, 2)


@pytest.mark.spec("REG-07")
def test_containment_gives_nothing_in_the_dead_band_and_all_at_two_hundred_millihertz() -> None:
    droop = {mhz: droop_kw(CONTAINMENT, mhz, 1000, 1000) for mhz in (-300, -200, -105, -10, 0, 10, 105, 200, 300)}
    assert droop == {-300: 1000, -200: 1000, -105: 500, -10: 0, 0: 0, 10: 0, 105: -500, 200: -1000, 300: -1000}


@pytest.mark.spec("REG-07")
def test_a_step_of_frequency_asks_for_the_droop_at_its_deviation() -> None:
    signal = make(CONTAINMENT, 1000, 1000)
    steps = [(one.deviation_mhz, one.change_kw) for one in signal.levels if one.deviation_mhz]
    assert [mhz for mhz, _ in steps] == [50, 100, 200, -50, -100, -200]
    # (50 - 10) / (200 - 10), (100 - 10) / 190, and all of it.
    assert [kw for _, kw in steps] == pytest.approx([-4000 / 19, -9000 / 19, -1000, 4000 / 19, 9000 / 19, 1000])


@pytest.mark.parametrize("kind", list(SignalKind))
@given(st.data())
def test_every_signal_begins_and_ends_at_zero_and_lies_on_the_meters_grid(
    kind: SignalKind, data: st.DataObject
) -> None:
    interval = data.draw(st.sampled_from([1, 4, 15, 60]))
    wanted = asked(
        kind,
        interval_s=interval,
        full_activation_time_s=data.draw(st.integers(interval, 600)),
        within_s=data.draw(st.integers(0, 600)),
        min_duration_s=data.draw(st.integers(0, 600)),
        deactivation_s=data.draw(st.none() | st.integers(0, 600)),
        recovery_s=data.draw(st.integers(0, 600)),
    )
    both = kind is SignalKind.FREQUENCY
    signal = make(wanted, 500, 500 if both else 0, seed=3)
    assert signal.levels[0].change_kw == signal.levels[-1].change_kw == 0
    assert signal.levels[0].at_s == 0 and signal.levels[1].at_s == 10 * interval
    assert all(one.at_s % interval == 0 for one in signal.levels)
    assert all(later > sooner for sooner, later in pairwise([one.at_s for one in signal.levels]))
    held = [end - one.at_s for one, end in zip(signal.levels, signal.ends(), strict=True) if one.change_kw == 500]
    assert max(held) >= wanted.full_activation_time_s + wanted.min_duration_s + 2 * interval
    at = signal.change_at(np.array([one.at_s for one in signal.levels], dtype=np.float64))
    assert at.tolist() == [one.change_kw for one in signal.levels]


@pytest.mark.spec("REG-07")
def test_a_quantity_that_the_product_does_not_take_makes_no_test() -> None:
    assert {one.code for one in faults(replace(BASE, tick_kw=100), 250, 0)} == {"tick"}
    assert {one.code for one in faults(BASE, 50, 0)} == {"min_quantity"}
    assert {one.code for one in faults(BASE, 100, 100)} == {"wrong_direction"}
    assert {one.code for one in faults(CONTAINMENT, 200, 100)} == {"symmetric"}
    assert {one.code for one in faults(replace(BASE, interval_s=3600), 100, 0)} == {"coarse_meter"}
    assert faults(BASE, 100, 0) == ()


@pytest.mark.spec("REG-07")
def test_a_tso_asks_for_nine_tenths_in_a_quarter_of_an_hour_and_a_dso_in_twenty_five_minutes() -> None:
    for scope, seconds in ((Scope.GLOBAL, 900), (Scope.LOCAL, 1500)):
        made = product(scope=scope)
        wanted = requirements(made, usual_procedure(made), SignalKind.STEP)
        assert (wanted.share, wanted.within_s) == (0.9, seconds)
        assert (wanted.interval_s, wanted.accuracy_percent) == (60, 1.0)


@pytest.mark.spec("REG-07")
def test_unless_the_product_says_otherwise() -> None:
    made = product(test_within_s=300, min_duration_s=3600, deactivation_time_s=120, months=tuple(range(1, 13)))
    own = Procedure(Service.AUTOMATIC_RESTORATION, (SignalKind.FOLLOWING,), ramp_s=200)
    wanted = requirements(made, own, SignalKind.FOLLOWING)
    assert (wanted.within_s, wanted.min_duration_s, wanted.deactivation_s, wanted.ramp_s) == (300, 3600, 120, 200)
    assert wanted.months == ()  # all of them
