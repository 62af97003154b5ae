"""What identity needs of the running platform."""

from __future__ import annotations

from typing import Protocol

from coflex.service.machine import Machine
from coflex.service.ports import Clock, Command
from coflex.service.sequencer import Receipt


class Platform(Protocol):
    """The machine for reading, and a place to hand in commands; used on the machine's thread alone."""

    @property
    def machine(self) -> Machine: ...

    @property
    def clock(self) -> Clock: ...

    async def submit(self, command: Command) -> Receipt:
        """Take a command and return when it is on the disk. Raises what the verb raises."""
        ...
