"""Named series on one time axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Floats
from coflex.domain.time import Axis


@dataclass(frozen=True, eq=False)
class Series:
    """`values[i, t]`: series `names[i]` in period `t` of the axis. The unit of measure is the holder's to say."""

    names: tuple[str, ...]
    axis: Axis
    values: Floats

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.names), len(self.axis)):
            raise CoflexError(
                f"Series of shape {self.values.shape} do not fit {len(self.names)} names on {len(self.axis)} periods."
            )

    def row(self, name: str) -> Floats:
        """The values of one series, shape (periods,). Raises CoflexError on an unknown name."""
        if name not in self.names:
            raise CoflexError(f"There is no series '{name}'.")
        row: Floats = self.values[self.names.index(name)]
        return row

    def rows(self, names: Iterable[str]) -> Floats:
        """The values of several series in the order asked, shape (names, periods)."""
        where = {name: i for i, name in enumerate(self.names)}
        try:
            return self.values[np.array([where[name] for name in names], dtype=np.int64)]
        except KeyError as missing:
            raise CoflexError(f"There is no series {missing}.") from None

    def window(self, part: Axis) -> Series:
        """The same series on a part of the axis."""
        return Series(self.names, part, self.values[:, self.axis.slice_of(part)])
