"""How long the solvers, the power flow, its sensitivities and the traffic lights take within a piece of work.

The rooms below hold no clock of their own. So their doors are given one for as long as the work lasts: every function
named here is stood in for by one that counts its time, wherever a module of coflex knows it by name. What one of them
calls of the others counts once, for the outermost; but the power flows and sensitivities that a light asks for are
counted as such, and the light's own is the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from threading import Lock
from time import perf_counter
from types import ModuleType
from typing import Any

from coflex.grid import light, newton, powerflow
from coflex.grid.dc import DcGrid
from coflex.grid.linear import LinearGrid
from coflex.grid.rows import AcGrid
from coflex.grid.sensitivity import Linearisation
from coflex.solver import cone, highs

SOLVER, POWER_FLOW, SENSITIVITY, LIGHT = "solver", "power_flow", "sensitivity", "light"
PARTS = (SOLVER, POWER_FLOW, SENSITIVITY, LIGHT)
_FUNCTIONS: tuple[tuple[str, Callable[..., Any]], ...] = (
    (SOLVER, highs.solve),
    (SOLVER, cone.solve),
    (POWER_FLOW, powerflow.solve),
    (POWER_FLOW, powerflow.state_of),
    (POWER_FLOW, newton.solve),
    (LIGHT, light.capability),
)
_MODELS = (AcGrid, DcGrid, LinearGrid)
_METHODS: tuple[tuple[str, type, str], ...] = (
    *((POWER_FLOW, model, "believe") for model in _MODELS),
    *((SENSITIVITY, model, "slopes") for model in _MODELS),
    *((SENSITIVITY, Linearisation, name) for name in ("__init__", "responses", "sensitivities", "step", "adjoint")),
)
# Names are the process's; two clocks at once would count each other's time.
_ONE = Lock()


@dataclass(slots=True)
class Seconds:
    """What a piece of work took: all of it, and of it in each part; `calls` of each part."""

    total: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    within: bool = False

    @property
    def outside(self) -> float:
        """What was spent outside solvers and power flows, sensitivities and lights in it."""
        return self.total - self.parts[SOLVER] - self.parts[POWER_FLOW]

    @property
    def bare(self) -> float:
        """What was spent outside all parts."""
        return self.total - sum(self.parts.values())


@contextmanager
def stopwatch() -> Iterator[Seconds]:
    """Time what is done in here; the seconds are whole when it is left. One at a time in a process, others wait."""
    seconds = Seconds()
    with _ONE:
        clocked = {function: _clocked(part, function, seconds) for part, function in _FUNCTIONS}
        methods = [(owner, name, getattr(owner, name), part) for part, owner, name in _METHODS]
        _stand_in(clocked)
        for owner, name, method, part in methods:
            setattr(owner, name, _clocked(part, method, seconds))
        begun = perf_counter()
        try:
            yield seconds
        finally:
            seconds.total = perf_counter() - begun
            _stand_in({clock: function for function, clock in clocked.items()})
            for owner, name, method, _ in methods:
                setattr(owner, name, method)


def _clocked(part: str, function: Callable[..., Any], seconds: Seconds) -> Callable[..., Any]:
    @wraps(function)
    def timed(*words: Any, **more: Any) -> Any:
        if seconds.within:
            return function(*words, **more)
        # A light is no door to close: what it asks of the others is theirs.
        seconds.within = part != LIGHT
        known, begun = sum(seconds.parts.values()), perf_counter()
        try:
            return function(*words, **more)
        finally:
            seconds.parts[part] += perf_counter() - begun - (sum(seconds.parts.values()) - known)
            seconds.calls[part] += 1
            seconds.within = False

    return timed


def _stand_in(instead: dict[Callable[..., Any], Callable[..., Any]]) -> None:
    """Put functions in the place of others in every module of coflex, also those that were imported meanwhile."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "coflex" and isinstance(module, ModuleType):
            for word, value in list(vars(module).items()):
                if callable(value) and _known(value, instead):
                    setattr(module, word, instead[value])


def _known(value: Any, instead: dict[Callable[..., Any], Callable[..., Any]]) -> bool:
    return type(value).__name__ == "function" and value in instead
