"""aFRR: targets that keep the ramp, shares that add up, and how well a signal was followed (ACT-05)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.activation.regulation import Band, Participant, quality, sent, shares, target, targets

BAND = Band(600_000, 300_000)
participants = st.lists(
    st.builds(Participant, st.sampled_from([f"u{k}" for k in range(6)]), st.integers(0, 1000), st.integers(0, 1000),
              st.integers(0, 50)),
    unique_by=lambda one: one.unit, max_size=6,
)  # fmt: skip
signals = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60).map(np.array)


@pytest.mark.spec("ACT-05")
@settings(deadline=None)
@given(signals)
def test_a_target_stays_in_the_band_keeps_the_ramp_and_never_passes_the_signal(signal: np.ndarray) -> None:
    found = np.concatenate([[0.0], targets(signal, BAND)])
    assert (found <= BAND.up_w + 1e-6).all() and (found >= -BAND.down_w - 1e-6).all()
    pace = max(BAND.up_w, BAND.down_w) / BAND.full_activation_s * 4
    assert (np.abs(np.diff(found)) <= pace + 1e-6).all()
    for before, after, wanted in zip(found, found[1:], np.clip(signal, -BAND.down_w, BAND.up_w), strict=False):
        assert min(before, wanted) - 1e-6 <= after <= max(before, wanted) + 1e-6


@pytest.mark.spec("ACT-05")
def test_the_whole_reserve_takes_the_full_activation_time_and_not_less() -> None:
    up = targets(np.full(100, 1e6), BAND)
    assert up[73] < BAND.up_w and up[74] == pytest.approx(BAND.up_w)
    down = targets(np.full(100, -1e6), BAND)
    assert down[73] > -BAND.down_w and down[74] == pytest.approx(-BAND.down_w)
    back = targets(np.full(200, -1e6), BAND, before_w=float(BAND.up_w))
    assert back[74] == pytest.approx(0, abs=1e-6) and back[149] == pytest.approx(-BAND.down_w)
    across = target(1e6, -2_000.0, BAND)  # half a step to zero at 1 kW a second, the rest at 2 kW
    assert across == pytest.approx(4_000.0)


@pytest.mark.spec("ACT-05")
@settings(deadline=None)
@given(st.integers(-5000, 5000), participants, st.randoms())
def test_shares_add_up_and_nobody_gives_more_than_it_can(wanted: int, units: list[Participant], chance: object) -> None:
    found = shares(wanted, units)
    most = {one.unit: (one.up_w if wanted >= 0 else one.down_w) if one.factor else 0 for one in units}
    assert sum(found.values()) == (1 if wanted >= 0 else -1) * min(abs(wanted), sum(most.values()))
    assert all(abs(found[unit]) <= kw for unit, kw in most.items())
    assert all(value == 0 or (value > 0) == (wanted > 0) for value in found.values())
    mixed = list(units)
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    assert shares(wanted, mixed) == found


def test_factors_hold_among_those_who_are_not_full() -> None:
    units = [Participant("a", 1000, 0, 3), Participant("b", 1000, 0, 1), Participant("c", 100, 0, 4)]
    assert shares(900, units) == {"a": 600, "b": 200, "c": 100}
    assert sent([900, 0, -5], units).tolist() == [[600, 200, 100], [0, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="twice"):
        shares(1, [units[0], units[0]])


@pytest.mark.spec("ACT-05")
@settings(max_examples=25, deadline=None)
@given(signals, st.integers(0, 75))
def test_who_follows_the_target_late_by_less_than_the_time_allowed_complies(signal: np.ndarray, lag: int) -> None:
    base = np.full(len(signal), 1e6)
    stepped = np.clip(signal, -BAND.down_w, BAND.up_w)
    late = np.concatenate([np.zeros(min(lag, len(signal))), stepped[: max(0, len(signal) - lag)]])
    found = quality(signal, base + late, base, BAND, tolerance=0.0)
    assert found.compliant == found.judged == len(signal)


@pytest.mark.spec("ACT-05")
def test_the_delay_the_energy_and_what_is_missing_are_told() -> None:
    signal = np.repeat([0.0, 5e5, -2e5, 3e5], 150)
    wanted = targets(signal, BAND)
    late = np.concatenate([np.zeros(5), wanted[:-5]])
    found = quality(signal, late, np.zeros(600), BAND)
    assert found.delay_s == 20.0 and found.share == 1.0
    exact = quality(signal, wanted, np.zeros(600), BAND)
    assert exact.mean_error_w == 0 and exact.delay_s == 0.0 and exact.asked_wh == exact.given_wh
    half = quality(signal, wanted / 2, np.zeros(600), BAND)
    assert half.share is not None and half.share < 0.95 and half.worst_w == pytest.approx(2.5e5)
    measured = wanted.copy()
    measured[:100] = np.nan
    assert quality(signal, measured, np.zeros(600), BAND).judged == 500
    assert quality(np.zeros(5), np.full(5, np.nan), np.zeros(5), BAND).share is None
    assert quality(np.zeros(5), np.zeros(5), np.zeros(5), BAND).delay_s is None
