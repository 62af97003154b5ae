"""Products to test, and devices that answer: a first-order one whose response is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
from scipy import signal as systems

from coflex.domain.product import Product, QuantityKind
from coflex.domain.quantity import Direction, Floats
from coflex.domain.reading import Quality
from coflex.domain.unit import Scope
from coflex.qualification.requirements import Requirements, Service, SignalKind
from coflex.qualification.signals import Signal
from coflex.qualification.verdict import Criterion, Judgement, Recording

STARTS = datetime(2026, 3, 1, 12, tzinfo=UTC)

BASE = Requirements(
    product="mfrr",
    service=Service.MANUAL_RESTORATION,
    signal=SignalKind.STEP,
    kind=QuantityKind.ACTIVE_ENERGY,
    directions=(Direction.UP,),
    symmetric=False,
    divisible=True,
    min_quantity_kw=100,
    tick_kw=1,
    resolution_s=900,
    share=0.9,
    within_s=900,
    full_activation_time_s=1800,
    ramp_s=1440.0,
    min_duration_s=900,
    max_duration_s=None,
    deactivation_s=900,
    recovery_s=0,
    interval_s=60,
    accuracy_percent=1.0,
    full_mhz=200.0,
    dead_band_mhz=10.0,
    delay_s=2.0,
)

CONTAINMENT = replace(
    BASE,
    product="fcr",
    service=Service.FREQUENCY_CONTAINMENT,
    signal=SignalKind.FREQUENCY,
    kind=QuantityKind.ACTIVE_CAPACITY,
    directions=(Direction.DOWN, Direction.UP),
    symmetric=True,
    within_s=30,
    full_activation_time_s=30,
    ramp_s=24.0,
    min_duration_s=120,
    deactivation_s=30,
    interval_s=1,
)


def product(**more: object) -> Product:
    """A global product of the catalogue, tested as the catalogue says."""
    plain = Product(
        id="mfrr",
        scope=Scope.GLOBAL,
        kind=QuantityKind.ACTIVE_ENERGY,
        directions=(Direction.UP,),
        resolution_s=900,
        tick_kw=10,
        min_quantity_kw=100,
        full_activation_time_s=900,
        price_cap_eur_mwh=Decimal(1000),
        divisible=True,
        symmetric=False,
        tolerance=Decimal("0.1"),
        penalty_share=Decimal("0.5"),
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def samples(signal: Signal, interval: int) -> Floats:
    """The stamps of a meter that measures the whole signal, in seconds."""
    return np.arange(0, signal.length_s, interval, dtype=np.float64)


def recording(kw: Floats, interval: int, **more: object) -> Recording:
    """What a good meter recorded from the start of the test on."""
    at = tuple(STARTS + timedelta(seconds=interval * i) for i in range(len(kw)))
    values = tuple(float(one) for one in kw)
    plain = Recording(at, values, (Quality.MEASURED,) * len(kw), "kW", float(interval), 1.0)
    return replace(plain, **more)  # type: ignore[arg-type]


def first_order(signal: Signal, tau: float, interval: int, gain: float = 1.0, baseline: float = 0.0) -> Recording:
    """The mean power of each interval of a device dP/dt = (gain * set point - P) / tau, in closed form: from level to
    level P moves as exp(-t/tau), and its mean over an interval is (integral of P) / interval."""
    return recording(baseline + _means(signal, tau, interval, gain), interval)


def _means(signal: Signal, tau: float, interval: int, gain: float) -> Floats:
    edges = np.arange(0, signal.length_s + interval, interval, dtype=np.float64)
    energy = np.zeros_like(edges)
    power, done = 0.0, 0.0
    for level, end in zip(signal.levels, signal.ends(), strict=True):
        target, length = gain * level.change_kw, float(end - level.at_s)
        inside = (edges > level.at_s) & (edges <= end)
        t = edges[inside] - level.at_s
        energy[inside] = done + target * t + (power - target) * tau * (1 - np.exp(-t / tau))
        done += target * length + (power - target) * tau * (1 - np.exp(-length / tau))
        power = target + (power - target) * np.exp(-length / tau)
    means: Floats = np.diff(energy) / interval
    return means


def by_second_implementation(signal: Signal, tau: float, interval: int) -> Recording:
    """The same device by `scipy.signal.lsim` on a grid of tenths of a second, averaged over the intervals."""
    step = 0.1
    t = np.arange(0, signal.length_s + step / 2, step)
    _, power, _ = systems.lsim(([1.0], [tau, 1.0]), signal.change_at(t), t, interp=False)
    per = round(interval / step)
    middles = (power[:-1] + power[1:]) / 2
    return recording(middles.reshape(-1, per).mean(axis=1), interval)


def limited(signal: Signal, rate_kw_s: float, interval: int, delay_s: int = 0) -> Recording:
    """A device that moves towards the set point at most at a rate, `delay_s` after it was told."""
    seconds = np.arange(0, signal.length_s, 1.0)
    target = signal.change_at(np.maximum(seconds - delay_s, 0))
    power, values = 0.0, []
    for wanted in target:
        before, power = power, power + float(np.clip(wanted - power, -rate_kw_s, rate_kw_s))
        values.append((before + power) / 2)
    return recording(np.array(values).reshape(-1, interval).mean(axis=1), interval)


def criterion(judgement: Judgement, name: str) -> Criterion:
    (found,) = (one for one in judgement.criteria if one.name == name)
    return found


def failed(judgement: Judgement) -> set[str]:
    return {one.name for one in judgement.criteria if not one.passed}


def bisect(good: float, bad: float, passes: Callable[[float], bool]) -> float:
    """Where a verdict flips between a value that passes and one that does not."""
    for _ in range(40):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if passes(middle) else (good, middle)
    return good
