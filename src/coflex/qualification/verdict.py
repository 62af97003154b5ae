"""The verdict on a recorded answer (REG-07): every criterion with what was asked for, what was measured, and why.

A sample is the mean of its interval and stands for the middle of it; between middles the answer is a straight line.
Integrity comes first: the answer must hold one measured finite value for every interval of the signal, in order, from a
meter good enough. One value that is missing, estimated or out of order leaves all criteria of performance unjudged, and
not passed: a hole can hide the very minute in which nothing was delivered.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np

from coflex.domain.quantity import Direction, Floats
from coflex.domain.reading import Quality
from coflex.qualification.curve import Curve, Stay
from coflex.qualification.requirements import RAMP_FROM, RAMP_TO, Requirements, SignalKind
from coflex.qualification.signals import Signal

# Seconds by which two clocks may differ and still name the same sample, as a share of the interval.
CLOCK_TOLERANCE = 0.01
# Rounding of times (s) and shares in comparisons; far below what any meter resolves.
EPSILON = 1e-6
# Containment has begun with a tenth of the change, and is half way in half the full activation time (2017/1485).
BEGUN, HALF = 0.1, 0.5
# No group of a distribution grid comes near this power in kW: a value beyond it is a fault of the meter.
LARGEST_KW = 1e9


@dataclass(frozen=True, slots=True)
class BaselinePoint:
    """From `at_s` seconds after the start of the test, until the next point: the power without the test in kW."""

    at_s: int
    kw: float


@dataclass(frozen=True, slots=True)
class Recording:
    """A measured answer: sample i is the mean power of [at[i], at[i] + interval_s), signed, injection positive.

    `unit`: of measure, "kW" where it is right. `kw[i]` None: no value. `accuracy_percent`: class of the meter.
    """

    at: tuple[datetime, ...]
    kw: tuple[float | None, ...]
    quality: tuple[Quality, ...]
    unit: str
    interval_s: float
    accuracy_percent: float


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing that was asked for: `required` and `measured` in `unit`, None where there is no number."""

    name: str
    required: float | None
    measured: float | None
    unit: str
    passed: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict: passed only if every criterion is."""

    passed: bool
    criteria: tuple[Criterion, ...]


def judge(
    asked: Requirements,
    signal: Signal,
    starts: datetime,
    recording: Recording,
    baseline: tuple[BaselinePoint, ...] = (),
) -> Judgement:
    """Judge the answer to a signal sent from `starts` on.

    `baseline`: nominated beforehand; without one it is the mean of the samples before the first order. The baseline has
    no say in the integrity of the answer, and the requirements none in the baseline.
    """
    seconds = np.array([(at - starts) / timedelta(seconds=1) for at in recording.at], dtype=np.float64)
    criteria = [*_integrity(asked, signal, seconds, recording), _quantity(asked, signal)]
    if all(one.passed for one in criteria):
        criteria += _performance(asked, signal, _Answer(signal, seconds, recording, baseline))
    else:
        criteria.append(
            Criterion("performance", None, None, "", False, "Not judged: the answer is no whole evidence; test again.")
        )
    return Judgement(all(one.passed for one in criteria), tuple(criteria))


# ---------------------------------------------------------------- integrity


def _integrity(asked: Requirements, signal: Signal, seconds: Floats, recording: Recording) -> list[Criterion]:
    values = np.array([np.nan if kw is None else kw for kw in recording.kw], dtype=np.float64)
    bad = int(np.count_nonzero(~(np.abs(values) <= LARGEST_KW)))
    guessed = sum(one is not Quality.MEASURED for one in recording.quality)
    unit = Criterion(
        "unit_of_measure",
        None,
        None,
        "",
        recording.unit == "kW",
        f"The values are in '{recording.unit}', asked for in 'kW'.{_hint(signal, seconds, values)}",
    )
    return [
        unit,
        *_clock(signal, seconds, recording),
        _at_most("values", 0, bad, "samples", f"{bad} of {len(values)} samples hold no finite value"),
        _at_most("quality", 0, guessed, "samples", f"{guessed} of {len(values)} samples were not measured"),
        _meter("metering_interval", asked.interval_s, recording.interval_s, "s", "The meter gives a value every"),
        _meter("accuracy_class", asked.accuracy_percent, recording.accuracy_percent, "%", "The meter is of class"),
    ]


def _meter(name: str, most: float, measured: float, unit: str, what: str) -> Criterion:
    text = f"{what} {measured:g} {unit}; above zero and at most {most:g} {unit}."
    return Criterion(name, float(most), _rounded(measured), unit, 0 < measured <= most, text)


def _clock(signal: Signal, seconds: Floats, recording: Recording) -> list[Criterion]:
    """Order, and one sample for every interval of the signal."""
    interval = recording.interval_s
    near = CLOCK_TOLERANCE * interval
    steps = np.diff(seconds)
    back = int(np.count_nonzero(steps <= 0))
    same_length = len(recording.at) == len(recording.kw) == len(recording.quality)
    odd = int(np.count_nonzero(np.abs(steps - interval) > near)) + (not same_length)
    first = float(seconds[0]) if len(seconds) else np.inf
    last = float(seconds[-1]) + interval if len(seconds) else -np.inf
    missing = max(0.0, first) + max(0.0, signal.length_s - last) if len(seconds) else float(signal.length_s)
    return [
        _at_most("clock", 0, back, "samples", f"{back} samples are not later than the one before"),
        _at_most("gaps", 0, odd, "places", f"{odd} samples do not follow the one before by {interval:g} s"),
        _at_most("coverage", near, missing, "s", f"{missing:.3g} s of the signal's {signal.length_s} s have no sample"),
    ]


def _hint(signal: Signal, seconds: Floats, values: Floats) -> str:
    """What a wrong factor looks like, in words: it helps to find the fault, and decides nothing."""
    if len(seconds) != len(values) or not np.isfinite(values).all() or len(values) < 2:
        return ""
    order = signal.change_at(seconds)
    order = order - order.mean()
    size = float(order @ order)
    factor = float(order @ (values - values.mean())) / size if size else 0.0
    for low, high, words in (
        (500.0, 2000.0, "a thousand times what was asked for, as if they were W"),
        (0.0005, 0.002, "a thousandth of what was asked for, as if they were MW"),
        (-1.5, -0.5, "opposite to what was asked for, as if withdrawal were positive"),
    ):
        if low <= factor <= high:
            return f" They move {words}; check unit and sign."
    return ""


def _quantity(asked: Requirements, signal: Signal) -> Criterion:
    smallest = min((signal.quantity(direction) for direction in asked.directions), default=0)
    least = max(asked.min_quantity_kw, 1)
    even = signal.up_kw == signal.down_kw or not asked.symmetric
    text = f"The test is of {signal.up_kw} kW up and {signal.down_kw} kW down; at least {least} kW are asked for in "
    text += " and ".join(asked.directions) + (", the same both ways." if asked.symmetric else ".")
    return Criterion("quantity", least, smallest, "kW", smallest >= least and even, text)


# ---------------------------------------------------------------- performance


class _Answer:
    """The change from the baseline (kW) as a curve over the seconds of the signal, and its samples."""

    def __init__(
        self, signal: Signal, seconds: Floats, recording: Recording, baseline: tuple[BaselinePoint, ...]
    ) -> None:
        middles = seconds + recording.interval_s / 2
        values = np.array(recording.kw, dtype=np.float64)
        self.begins, self.ends = seconds, seconds + recording.interval_s
        self.change: Floats = values - _baseline(signal, seconds, self.ends, middles, values, baseline)
        self.curve = Curve(middles, self.change)

    def last_before(self, time: float) -> float:
        """The middle of the last sample that lies wholly before a time: the next one may hold what comes after it."""
        return float(self.curve.times[max(int(np.searchsorted(self.ends, time + EPSILON, side="right")) - 1, 0)])


def _baseline(
    signal: Signal, begins: Floats, ends: Floats, middles: Floats, values: Floats, nominated: tuple[BaselinePoint, ...]
) -> Floats:
    if nominated:
        places = np.searchsorted([point.at_s for point in nominated], middles, side="right") - 1
        points: Floats = np.array([point.kw for point in nominated], dtype=np.float64)[np.maximum(places, 0)]
        return points
    first = signal.levels[1].at_s
    before = (begins >= 0) & (ends <= first + EPSILON)
    return np.full_like(values, values[before].mean())


@dataclass(frozen=True, slots=True)
class _Order:
    """A time [begin, end) in which `kw` (signed) is asked for; `then`: when the level after it ends."""

    begin: float
    end: float
    then: float
    kw: float

    @property
    def direction(self) -> Direction:
        return Direction.UP if self.kw > 0 else Direction.DOWN

    def share(self, curve: Curve) -> Curve:
        """The answer as a share of the order."""
        return curve.scaled(1 / self.kw)

    def __str__(self) -> str:
        return f"the order of {abs(self.kw):g} kW {self.direction} at {self.begin:g} s"


def _orders(signal: Signal) -> list[_Order]:
    """The times in which the whole quantity is asked for, of those the longest: they are made to be held."""
    ends = signal.ends()
    orders = []
    for i, level in enumerate(signal.levels):
        quantity = signal.up_kw if level.change_kw > 0 else signal.down_kw
        if level.change_kw and abs(level.change_kw) == quantity:
            then = ends[i + 1] if i + 1 < len(ends) else ends[i]
            orders.append(_Order(level.at_s, ends[i], then, level.change_kw))
    longest = max((order.end - order.begin for order in orders), default=0)
    return [order for order in orders if order.end - order.begin == longest]


def _performance(asked: Requirements, signal: Signal, answer: _Answer) -> list[Criterion]:
    orders = _orders(signal)
    if signal.kind is SignalKind.FREQUENCY:
        return [*_droop(asked, signal, answer), _sustained(asked, orders, answer)]
    full = _full_activation(asked, orders, answer)
    if signal.kind is SignalKind.STEP:
        return [
            _delivered(asked, orders, answer),
            full,
            _ramp(asked, orders, answer),
            _sustained(asked, orders, answer),
            *_after(asked, orders, answer),
            _recovery(asked, orders, answer),
        ]
    return [_following(asked, signal, answer), full, _sustained(asked, orders, answer)]


def _band(asked: Requirements) -> tuple[float, float]:
    """Shares of an order between which it counts as delivered: as far above as below."""
    return asked.share - EPSILON, 2 - asked.share + EPSILON


def _delivery_s(asked: Requirements, order: _Order, answer: _Answer) -> float:
    """Seconds from the order to the first instant from which it is delivered to its end; infinity if it is not."""
    end = answer.last_before(order.end)
    return _until_the_end(order.share(answer.curve).stays(*_band(asked), order.begin, end), end) - order.begin


def _delivered(asked: Requirements, orders: list[_Order], answer: _Answer) -> Criterion:
    times = [(_delivery_s(asked, order, answer), order) for order in orders]
    return _slowest("delivered_share", asked.within_s, times, f"{asked.share:.0%}, held to the end, was reached")


def _recovery(asked: Requirements, orders: list[_Order], answer: _Answer) -> Criterion:
    """Whether a second order, right after the rest that the product grants, is delivered like the first."""
    again = [(before.end, order) for before, order in pairwise(orders) if before.direction is order.direction]
    times = [(_delivery_s(asked, order, answer), order) for _, order in again]
    rest = max((order.begin - end for end, order in again), default=0)
    return _slowest("recovery", asked.within_s, times, f"{asked.share:.0%} after a rest of {rest:g} s was reached")


def _full_activation(asked: Requirements, orders: list[_Order], answer: _Answer) -> Criterion:
    """The whole quantity, as far as the class of the meter can tell, within the full activation time."""
    full = 1 - asked.accuracy_percent / 100
    times = [
        (order.share(answer.curve).first_at_least(full - EPSILON, order.begin, order.end) - order.begin, order)
        for order in orders
    ]
    return _slowest("full_activation", asked.full_activation_time_s, times, f"{full:.4g} of the power was reached")


def _ramp(asked: Requirements, orders: list[_Order], answer: _Answer) -> Criterion:
    times = []
    for order in orders:
        share = order.share(answer.curve)
        top = share.first_at_least(RAMP_TO, order.begin, order.end)
        foot = share.last_at_most(RAMP_FROM, order.begin, min(top, order.end))
        times.append((top - foot, order))
    worst, order = max(times, key=lambda one: one[0])
    span = RAMP_TO - RAMP_FROM
    rate = f"{60 * span * abs(order.kw) / worst:.4g} kW/min" if 0 < worst < np.inf else "no ramp that ends"
    return _slowest("ramp", asked.ramp_s, times, f"From {RAMP_FROM:.0%} to {RAMP_TO:.0%} of the power ({rate}) it took")


def _sustained(asked: Requirements, orders: list[_Order], answer: _Answer) -> Criterion:
    times = [(order.end - order.begin - _delivery_s(asked, order, answer), order) for order in orders]
    shortest, order = min(times, key=lambda one: one[0])
    held = max(shortest, 0.0)
    return Criterion(
        "sustained_duration",
        float(asked.min_duration_s),
        _rounded(held),
        "s",
        held >= asked.min_duration_s - EPSILON,
        f"Between {asked.share:.0%} and {2 - asked.share:.0%} it was held for {held:.1f} s, to the end of {order}; "
        f"at least {asked.min_duration_s} s.",
    )


def _after(asked: Requirements, orders: list[_Order], answer: _Answer) -> list[Criterion]:
    """The way back, where the product gives it a time: near zero, and from then on until the next order."""
    if asked.deactivation_s is None:
        return []
    times = []
    for order in orders:
        rest, end = 1 - asked.share + EPSILON, answer.last_before(order.then)
        stays = order.share(answer.curve).stays(-rest, rest, order.end, end)
        times.append((_until_the_end(stays, end) - order.end, order))
    return [
        _slowest("deactivation", asked.deactivation_s, times, f"Back within {1 - asked.share:.0%} of the power it was")
    ]


def _following(asked: Requirements, signal: Signal, answer: _Answer) -> Criterion:
    """Every sample lies within what was asked for during the full activation time before it, by (1 - share) of the
    quantity: who is slower than that, or leads, or misses, lies outside."""
    begins = np.array([level.at_s for level in signal.levels], dtype=np.float64)
    levels = np.array([level.change_kw for level in signal.levels], dtype=np.float64)
    ends = np.array(signal.ends(), dtype=np.float64)
    judged = (answer.ends > 0) & (answer.begins < signal.length_s)
    high, low = np.full(len(answer.begins), -np.inf), np.full(len(answer.begins), np.inf)
    for begin, end, kw in zip(begins, ends, levels, strict=True):
        asked_then = (begin < answer.ends - EPSILON) & (end > answer.begins - asked.full_activation_time_s + EPSILON)
        high[asked_then] = np.maximum(high[asked_then], kw)
        low[asked_then] = np.minimum(low[asked_then], kw)
    outside = np.where(judged, np.maximum(answer.change - high, low - answer.change), -np.inf)
    at = int(np.argmax(outside))
    quantity = max(signal.up_kw, signal.down_kw)
    share = 1 - max(float(outside[at]), 0.0) / quantity
    return Criterion(
        "following",
        asked.share,
        _rounded(share),
        "of 1",
        share >= asked.share - EPSILON,
        f"At worst, at {answer.begins[at]:g} s, the answer of {answer.change[at]:.4g} kW was "
        f"{max(float(outside[at]), 0.0):.4g} kW outside the {low[at]:g} to {high[at]:g} kW that were asked for in the "
        f"{asked.full_activation_time_s} s before; at most {(1 - asked.share) * quantity:.4g} kW.",
    )


# ---------------------------------------------------------------- frequency containment


def _droop(asked: Requirements, signal: Signal, answer: _Answer) -> list[Criterion]:
    """Each simulated deviation: begun in time, half and whole in time, and settled on the droop."""
    begun, half, whole, shares = [], [], [], []
    quantity = max(signal.up_kw, signal.down_kw)
    for before, level, end in zip(signal.levels, signal.levels[1:], signal.ends()[1:], strict=False):
        order = _Order(level.at_s, answer.last_before(end), end, level.change_kw - before.change_kw)
        if not order.kw:
            continue
        size = abs(level.change_kw) or quantity
        moved = answer.curve.moved(-answer.curve.at(answer.last_before(order.begin))).scaled(1 / order.kw)
        begun.append((moved.first_at_least(BEGUN, order.begin, order.end) - order.begin, order))
        half.append((moved.first_at_least(HALF * asked.share, order.begin, order.end) - order.begin, order))
        off = answer.curve.moved(-level.change_kw).scaled(1 / size)
        stays = off.stays(asked.share - 1 - EPSILON, 1 - asked.share + EPSILON, order.begin, order.end)
        whole.append((_until_the_end(stays, order.end) - order.begin, order))
        settled = off.largest(min(order.begin + asked.full_activation_time_s, order.end), order.end)
        shares.append((1 - settled, level.deviation_mhz))
    worst, deviation = min(shares)
    return [
        _slowest("delay", asked.delay_s, begun, f"The first {BEGUN:.0%} came"),
        _slowest("half_activation", asked.full_activation_time_s / 2, half, f"{HALF * asked.share:.0%} were reached"),
        _slowest("full_activation", asked.full_activation_time_s, whole, f"{asked.share:.0%} for good were reached"),
        Criterion(
            "droop_share",
            asked.share,
            _rounded(worst),
            "of 1",
            worst >= asked.share - EPSILON,
            f"Once settled, the answer to {deviation:g} mHz met the droop to {worst:.1%} at worst; "
            f"at least {asked.share:.0%}.",
        ),
    ]


# ---------------------------------------------------------------- words


def _until_the_end(stays: list[Stay], end: float) -> float:
    """The instant from which it stays to the end; infinity where it does not."""
    return stays[-1].begin if stays and stays[-1].end >= end - EPSILON else np.inf


def _slowest(name: str, most: float, times: list[tuple[float, _Order]], what: str) -> Criterion:
    """A time that the slowest order must keep."""
    worst, order = max(times, key=lambda one: one[0])
    passed = worst <= most + EPSILON
    if worst < np.inf:
        sentence = f"{what} {worst:.1f} s after {order}; at most {most:g} s."
    else:
        sentence = f"{what} never after {order}; at most {most:g} s."
    return Criterion(name, float(most), _rounded(worst), "s", passed, sentence)


def _at_most(name: str, most: float, measured: float, unit: str, what: str) -> Criterion:
    passed = bool(measured <= most)
    return Criterion(name, float(most), _rounded(measured), unit, passed, f"{what}; at most {most:g} {unit}.")


def _rounded(value: float) -> float | None:
    """To a microsecond or a millionth, so that equal answers give equal records; None for infinity."""
    return round(float(value), 6) if np.isfinite(value) else None
