"""Voltage reduction as a tap order: estimated by power flow, measured by switching on and off (T, scenario II)."""

from __future__ import annotations

import numpy as np
import pytest

from coflex.activation.tap import effect, measured_factor, order_of
from coflex.domain.errors import Refused
from coflex.grid.voltage_reduction import Reduction


def reduction(kw: list[list[int]]) -> Reduction:
    rows = np.array(kw)
    none = np.zeros((*rows.shape, 1))
    return Reduction(rows, none, none, rows.astype(float), rows.astype(float))


def test_the_fewest_steps_that_are_enough_are_ordered_and_no_step_without_effect() -> None:
    found = order_of(reduction([[10, 10, 10], [8, 8, 0], [6, 0, 0]]), ["T1"], [15, 30, 30])
    assert found.steps == (2, 2, 1) and found.kw == (18, 18, 10) and found.short_kw == (0, 12, 20)
    assert order_of(reduction([[10]]), ["T1"], [0]).steps == (0,)


def switched(
    n: float, noise: float, rng: np.random.Generator, count: int = 40, length: int = 20
) -> tuple[np.ndarray, ...]:
    """A load of factor n whose own level drifts, at a voltage that the taps lower by 3 percent every other time."""
    lowered = np.tile(np.repeat([False, True], length), count // 2)
    voltage = np.where(lowered, 0.97, 1.0) * (1 + rng.normal(0, 1e-4, len(lowered)))
    drift = 500 * (1 + 0.2 * np.sin(np.arange(len(lowered)) / 400))
    return lowered, drift * voltage**n * np.exp(rng.normal(0, noise, len(lowered))), voltage


def test_a_load_without_noise_gives_its_factor_to_four_places() -> None:
    lowered, power, voltage = switched(1.3, 0.0, np.random.default_rng(1))
    found = measured_factor(lowered, power, voltage, window=2)
    assert found.switchings == 39 and found.value == pytest.approx(1.3, abs=0.02)
    assert found.low <= found.value <= found.high


def test_the_bounds_hold_the_true_factor_as_often_as_the_confidence_says() -> None:
    """400 measurements of a noisy load at 90 percent: the share that holds it is within 3 binomial deviations."""
    rng, held, runs = np.random.default_rng(7), 0, 400
    for _ in range(runs):
        lowered, power, voltage = switched(0.8, 0.01, rng, count=20)
        found = measured_factor(lowered, power, voltage, window=5, confidence=0.9)
        held += found.low <= 0.8 <= found.high
    assert abs(held / runs - 0.9) <= 3 * np.sqrt(0.9 * 0.1 / runs)


def test_the_energy_saved_is_what_would_have_flowed_less_what_did() -> None:
    lowered, power, voltage = switched(1.0, 0.0, np.random.default_rng(2))
    found = measured_factor(lowered, power, voltage, window=2)
    saved = effect(found, lowered, power, voltage, 1 / 60)
    would = power[lowered] / voltage[lowered] * voltage[~lowered].mean()
    assert saved.kwh == pytest.approx(float((would - power[lowered]).sum() / 60), rel=0.02)
    assert saved.low_kwh <= saved.kwh <= saved.high_kwh
    assert effect(found, np.zeros(4, dtype=bool), power[:4], voltage[:4], 1.0).kwh == 0.0


def test_too_little_to_compare_is_refused() -> None:
    rng = np.random.default_rng(3)
    lowered, power, voltage = switched(1.0, 0.0, rng)
    for given, code in (
        ((lowered[:5], power, voltage, 2), "lengths"),
        ((lowered, power * np.nan, voltage, 2), "value"),
        ((lowered, power, voltage, 0), "window"),
        ((lowered, power, voltage, 2, 0, 1.5), "confidence"),
        ((lowered, power, voltage, 50), "switchings"),
        ((lowered, power, np.ones(len(power)), 2), "no_change"),
    ):
        with pytest.raises(Refused) as caught:
            measured_factor(*given)
        assert {one.code for one in caught.value.findings} == {code}
