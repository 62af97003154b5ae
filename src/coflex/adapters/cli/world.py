"""What the command line asks of the application; `coflex.app` answers. Nothing heavy is imported to say it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from coflex.process.activate import Activated
    from coflex.process.clear import Cleared
    from coflex.process.measure import Measured
    from coflex.process.plan import Planned
    from coflex.process.ports import Progress
    from coflex.process.qualify import Qualified
    from coflex.process.register import Registered
    from coflex.process.report import Reported
    from coflex.process.settle import Settled


class DayRun(Protocol):
    """A whole day's answers, as far as the summary shows them."""

    @property
    def cleared(self) -> tuple[Cleared, ...]: ...
    @property
    def settled(self) -> Settled: ...
    @property
    def reported(self) -> Reported: ...
    @property
    def seconds(self) -> float: ...


class Platform(Protocol):
    """An open day: the verbs."""

    def register(self) -> Registered: ...
    def qualify(self) -> Qualified: ...
    def plan(self) -> Planned: ...
    def offer(self, table: Path) -> Any: ...
    def clear(self) -> Cleared: ...
    def activate(self) -> Activated: ...
    def measure(self) -> Measured: ...
    def settle(self) -> Settled: ...
    def report(self) -> Reported: ...
    def sessions(self, progress: Progress, clear_last: bool) -> tuple[Planned | Cleared, ...]: ...
    def run(self, progress: Progress) -> DayRun: ...


class World(Protocol):
    """The application."""

    @property
    def CaseOrder(self) -> Callable[[str, date, int, int, int, float, float, str], Any]:  # noqa: N802  a class there
        """grid, day, seed, units, providers, load_scale, pv_scale, design"""
        ...

    def make_case(self, order: Any, folder: Path, replace: bool) -> Any: ...
    def begin_day(self, case_folder: Path, out: Path, replace: bool) -> AbstractContextManager[Platform]: ...
    def open_day(self, case_folder: Path, out: Path) -> AbstractContextManager[Platform]: ...


Load = Callable[[], World]
