"""What the routes get of the running platform: a place to hand in commands, and the promise of what is durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TypeAlias

from starlette.requests import Request

from coflex.adapters.web.api.problems import OutcomeUnknown
from coflex.domain.errors import CoflexError
from coflex.service import machine as machines
from coflex.service.machine import Machine
from coflex.service.ports import Clock, Command, Journal, StoreLost
from coflex.service.sequencer import Receipt, Sequencer, Unavailable
from coflex.service.state import State
from coflex.service.who import Who

# Who sends a request, in a tenant. Raises NotSignedIn, Forbidden (on behalf of whom it may not), NotFound (tenant).
Authenticate: TypeAlias = Callable[[Request, str], Awaitable[Who]]

# Seconds a caller waits for the disk before it is told that the outcome is not known.
PATIENCE = 10.0


@dataclass(eq=False)
class Desk:
    """Used on the event loop alone, which is the machine's thread; only `journal` may be read from other threads."""

    machine: Machine
    sequencer: Sequencer
    journal: Journal
    clock: Clock
    authenticate: Authenticate
    patience: float = PATIENCE
    # Who waits for the disk, the longest first, and until when by the loop's clock.
    _until: dict[asyncio.Future[None], float] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None

    def state(self, tenant: str) -> State:
        """Raises NotFound."""
        return self.machine.state(tenant)

    def now(self, tenant: str) -> datetime:
        """The tenant's time: the server's own, or the sandbox clock. Raises NotFound."""
        return machines.now(self.state(tenant), self.clock())

    async def submit(self, command: Command) -> Receipt:
        """Take a command and return when it is on the disk.

        Raises what the verb raises, KeyReused, Unavailable, StoreFull, StoreBroken; OutcomeUnknown when the disk did
        not answer in time: then the same key asks again.
        """
        async with self.looking():
            receipt = self.sequencer.submit(command)
        await self.durable(receipt.number)
        return receipt

    async def settled(self) -> None:
        """Return when everything that was applied until now is on the disk.

        A read calls it *after* it has looked at the state, so that nobody is shown what a crash could take back.
        """
        await self.durable(self.sequencer.number)

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Around what looks at the state: a refusal says what is there, as an answer does, so it waits for the disk as
        well. Where the state is undone instead, what undid it is raised. That nothing can be written is told at once.
        """
        try:
            yield
        except (Unavailable, StoreLost):
            raise
        except CoflexError:
            await self.settled()
            raise

    async def durable(self, number: int) -> None:
        """Return when the entry is on the disk. Raises what undid it, or OutcomeUnknown after `patience` seconds."""
        if number <= self.sequencer.durable_number:
            return
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()
        self.sequencer.when_durable(number, partial(_tell, waiting))
        if self._timer is None:
            self._timer = loop.call_later(min(self.patience, 1.0), self._give_up, loop)
        self._until[waiting] = loop.time() + self.patience
        try:
            await waiting
        finally:
            del self._until[waiting]

    def _give_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell whoever has waited too long. One timer for all of them: offers come by the thousand."""
        for waiting, until in self._until.items():
            if until > loop.time():
                break
            _tell(waiting, self._unknown())
        again = bool(self._until)
        self._timer = loop.call_later(min(self.patience, 1.0), self._give_up, loop) if again else None

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"The store did not answer within {self.patience:g} s; whether this was taken is not known.",
            "Ask again with the same idempotency key.",
        )


def _tell(waiting: asyncio.Future[None], fault: Exception | None) -> None:
    if waiting.done():
        return
    if fault is None:
        waiting.set_result(None)
    else:
        waiting.set_exception(fault)
