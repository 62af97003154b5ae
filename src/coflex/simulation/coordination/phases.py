"""The feeder of three phases as a case holds it: it can be copied and sent to another process.

The engine that solves its states is memory of its own, of which a copy would be a second name and freed twice. So what
is sent is how the feeder was built, and the receiver builds it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from coflex.domain.time import Axis
from coflex.market.coordination.world import PhaseFeeder
from coflex.simulation.coordination.feeder import feeder


@dataclass(frozen=True, eq=False)
class _Sent(PhaseFeeder):
    """A feeder with what it was built of."""

    axis: Axis
    congestion: float

    def __reduce__(self) -> tuple[Callable[..., PhaseFeeder], tuple[Axis, str, float]]:
        return phase_feeder, (self.axis, self.grid, self.congestion)


def phase_feeder(axis: Axis, grid: str, congestion: float) -> PhaseFeeder:
    """The feeder of `feeder.feeder` below a distribution grid. Raises CoflexError as that does."""
    built = feeder(axis, grid, congestion=congestion)
    parts = {one.name: getattr(built, one.name) for one in fields(PhaseFeeder)}
    return _Sent(**parts, axis=axis, congestion=congestion)
