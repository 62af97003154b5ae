"""The engine: work that is found in the states, computed outside the machine, and brought back as commands.

What is pending is read off the records alone: sessions open without a plan or closed without a result, in the order of
their gates, then grid checks in progress. So a crash between a gate and its result loses nothing; what was being
computed is computed again, with the same bytes. A step that fails raises an alarm on its session, and the delivery day
waits for the market operator.

One worker process computes, so that the machine's thread stays free and grid and solver are loaded there alone.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TypeAlias
from zoneinfo import ZoneInfo

from coflex.domain.errors import CoflexError, Conflict, Refused, SoldTwice
from coflex.domain.need import Request
from coflex.domain.offer import Offer
from coflex.register.market import DesignText, Market, SessionEntry, SessionRequests
from coflex.register.outcomes import SessionOutcome, Step, outcome_id, unpack
from coflex.register.prequalification import GridPrequalification, grid_id
from coflex.register.resources import PointEntry, UnitEntry
from coflex.register.work import Answer, Job, Register, Work
from coflex.service.books import books
from coflex.service.gates import plan_of, steps
from coflex.service.ledger import buyer_of, outcomes
from coflex.service.machine import Machine, encode
from coflex.service.ports import Command, Entry
from coflex.service.sequencer import Sequencer
from coflex.service.standing import at_gate, left_out, parties, register
from coflex.service.state import State
from coflex.service.verbs.prequalification import GridCheckComputed, Uncomputed, checks_in_progress
from coflex.service.verbs.sessions import RETRIED, TAKEN_BACK, Failed

ENGINE = "engine"
LONGEST_S = 900.0
MOST_CRASHES = 3
PAUSE_S = 1.0
log = logging.getLogger("coflex.engine")

# The answer to a job. A plain function of a module: another process imports it by name.
Compute: TypeAlias = Callable[[Job], Answer]
_WORK = {Step.PLAN: Work.PLAN, Step.RESULT: Work.CLEAR}
_VERB = {Work.PLAN: "session.planned", Work.CLEAR: "session.cleared", Work.GRID_CHECK: "grid_check.computed"}


# ---------------------------------------------------------------- what is pending


@dataclass(frozen=True, slots=True)
class Pending:
    """Work that a tenant waits for. `subject`: a session, or the first of the grid prequalifications of one operator
    and mode that are computed together."""

    tenant: str
    work: Work
    subject: str


def pending(machine: Machine) -> tuple[Pending, ...]:
    """What can be computed now, of every tenant the first thing first: sessions in the order of their gates, then
    grid checks. Of a delivery day one step at a time, and none after one that failed."""
    return tuple(one for tenant in sorted(machine.tenants) for one in _pending(machine.tenants[tenant]))


def _pending(state: State) -> Iterator[Pending]:
    begun = set()
    for due in steps(state):
        if due.day not in begun:
            begun.add(due.day)
            if not state.get(SessionEntry, due.session).alarm:
                yield Pending(state.tenant, _WORK[due.step], due.session)
    for (operator, _), units in checks_in_progress(state).items():
        yield Pending(state.tenant, Work.GRID_CHECK, grid_id(units[0], operator))


def job(machine: Machine, work: Pending) -> Job:
    """A piece of work with all that its answer depends on. A plan looks ahead from the register as it is now, which its
    outcome keeps; a result follows from what was settled when its gate closed, whenever it is computed."""
    state = machine.state(work.tenant)
    if work.work is Work.GRID_CHECK:
        return _grid_check(state, work)
    entry, market = state.get(SessionEntry, work.subject), state.get(Market, "market")
    clears = work.work is Work.CLEAR
    return Job(
        tenant=work.tenant,
        work=work.work,
        subject=entry.id,
        case=market.case,
        zone=market.zone,
        day=entry.day,
        design=state.get(DesignText, entry.design).text,
        at=entry.closes if clears else entry.opens,
        register=at_gate(state, entry) if clears else register(state, _as_of(entry)),
        session=entry.session,
        price_limit_eur_mwh=market.price_limit_eur_mwh,
        before=tuple(one for one in outcomes(state, entry.day) if one.id != outcome_id(entry.id, Step.RESULT)),
        offers=_offers(state, entry) if clears else (),
        without=tuple(sorted(left_out(state, entry).items())) if clears else (),
        requests=() if clears else _requests(state, entry),
        buyer=buyer_of(state, plan_of(state, entry)),
    )


def _as_of(entry: SessionEntry) -> datetime:
    """When a plan was last asked for."""
    return max([entry.opens, *(one.at for one in entry.reached if one.state in (RETRIED, TAKEN_BACK))])


def _offers(state: State, entry: SessionEntry) -> tuple[Offer, ...]:
    """The book of a closed session; of one whose result was taken back the offers that result was given."""
    before = state.find(SessionOutcome, outcome_id(entry.id, Step.RESULT))
    return books(state).offers(entry.id) if before is None else unpack(before.given, Offer)


def _requests(state: State, entry: SessionEntry) -> tuple[Request, ...]:
    """What the buyer asks for; the product is the session's."""
    record = state.find(SessionRequests, entry.id)
    if record is None:
        return ()
    return tuple(
        Request(entry.session, record.buyer, "", one.direction, one.start, one.quantity_kw, 0, one.price_limit_eur_mwh)
        for one in record.asked
    )


def _grid_check(state: State, work: Pending) -> Job:
    """The check of an operator's units in its grid, beside all units that are registered. `at`: the last time at which
    one of them was asked about or changed, so that a check that is computed again is the same."""
    first, market = state.get(GridPrequalification, work.subject), state.get(Market, "market")
    assert first.mode is not None  # it is in progress
    points = {one.id: one.point for one in state.all(PointEntry)}
    units = [one for one in state.all(UnitEntry) if one.live and one.unit.connection_point in points]
    asked = checks_in_progress(state)[first.operator, first.mode]
    records = [state.get(GridPrequalification, grid_id(name, first.operator)) for name in asked]
    changed = [one.changed_materially for one in units if one.id in set(asked)]
    at = max([*(one.status_since for one in records), *changed])
    return Job(
        tenant=work.tenant,
        work=work.work,
        subject=work.subject,
        case=market.case,
        zone=market.zone,
        day=at.astimezone(ZoneInfo(market.zone)).date() + timedelta(days=1),
        design=state.get(DesignText, market.design).text,
        at=at,
        register=Register(
            parties=parties(state),
            points=tuple(points.values()),
            units=tuple(one.unit for one in units),
        ),
        mode=first.mode.value,
        only=asked,
    )


# ---------------------------------------------------------------- bringing answers back


def command(work: Pending, of: Job, answer: Answer, seen: int = 0) -> Command:
    """The command that brings an answer, or its failure, to the machine. `seen`: number of the last entry when the job
    was made; the idempotency key says it, so that the answer can be computed anew from the journal (see `seen_by`)."""
    verb, body = _VERB[work.work], answer.body
    if answer.fault and work.work is Work.GRID_CHECK:
        failed = tuple(Uncomputed(name, answer.fault) for name in of.only)
        body = encode(GridCheckComputed((), failed, of.at))
    elif answer.fault:
        step = Step.PLAN if work.work is Work.PLAN else Step.RESULT
        verb, body = "session.failed", encode(Failed(step, answer.fault))
    key = f"{ENGINE}:{seen}:{work.subject}" if seen and not answer.fault else None
    return Command(work.tenant, verb, work.subject, "", "", ENGINE, body, key)


def seen_by(entry: Entry) -> int | None:
    """Number of the entry after which the job was made whose answer an entry brought; None for all others."""
    key = entry.command.key or ""
    return int(key.split(":", 2)[1]) if entry.command.actor == ENGINE and key.startswith(f"{ENGINE}:") else None


def bring(sequencer: Sequencer, work: Pending, of: Job, answer: Answer, seen: int) -> None:
    """Submit an answer. One that the machine refuses raises the alarm; one that nobody waits for any more is dropped.

    Raises Unavailable, and what the journal raises.
    """
    try:
        sequencer.submit(command(work, of, answer, seen))
    except (Refused, Conflict, SoldTwice) as fault:
        log.warning("the answer to %s %s was refused: %s", work.work.value, work.subject, fault)
        if work in pending(sequencer.machine) and not answer.fault:
            sequencer.submit(command(work, of, Answer(fault=str(fault))))


def work_off(sequencer: Sequencer, compute: Compute) -> int:
    """Compute all that is pending, one after the other, here; how much it was. For tools and tests."""
    count = 0
    while found := pending(sequencer.machine):
        made, seen = job(sequencer.machine, found[0]), sequencer.number
        bring(sequencer, found[0], made, compute(made), seen)
        count += 1
    return count


class Engine:
    """Computes what is pending, of each tenant one thing at a time, and brings it back. On the machine's event loop.

    `compute`: the answer to a job, made elsewhere (`Worker`).
    """

    def __init__(self, sequencer: Sequencer, compute: Callable[[Job], Awaitable[Answer]]) -> None:
        self._sequencer, self._compute = sequencer, compute
        self._wake = asyncio.Event()
        self._busy: dict[str, asyncio.Task[None]] = {}
        sequencer.listeners.append(self._heard)

    def _heard(self, entry: Entry) -> None:
        """Look for work again; the book of a session whose result is on the disk is needed no more."""
        if entry.command.verb == _VERB[Work.CLEAR]:
            books(self._sequencer.machine.state(entry.command.tenant)).drop(entry.command.subject)
        if entry.changes:  # offers change no record, and come by the thousand
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._wake.clear()
                for work in pending(self._sequencer.machine):
                    if work.tenant not in self._busy:
                        self._busy[work.tenant] = asyncio.create_task(self._do(work))
                await self._wake.wait()
        finally:
            for task in self._busy.values():
                task.cancel()

    async def _do(self, work: Pending) -> None:
        """One piece of work. It is computed from what is on the disk: a state that a failing disk may take back
        decides nothing."""
        try:
            made, seen = job(self._sequencer.machine, work), self._sequencer.number
            await self._durable()
            begun = time.monotonic()
            answer = await self._compute(made)
            log.info("%s %s took %.2f s", work.work.value, work.subject, time.monotonic() - begun)
            bring(self._sequencer, work, made, answer, seen)
        except CoflexError as fault:
            log.warning("%s %s waits: %s", work.work.value, work.subject, fault)
            await asyncio.sleep(PAUSE_S)
        except Exception as fault:
            log.exception("%s %s failed", work.work.value, work.subject)
            self._alarm(work, f"A fault of the program: {fault!r}.")
            await asyncio.sleep(PAUSE_S)
        finally:
            self._busy.pop(work.tenant, None)
            self._wake.set()

    def _alarm(self, work: Pending, reason: str) -> None:
        """Have a session wait for the market operator; a grid check has no alarm and is tried again."""
        if work.work is Work.GRID_CHECK:
            return
        body = encode(Failed(Step.PLAN if work.work is Work.PLAN else Step.RESULT, reason))
        try:
            self._sequencer.submit(Command(work.tenant, "session.failed", work.subject, "", "", ENGINE, body))
        except CoflexError as fault:
            log.warning("the alarm of %s was refused: %s", work.subject, fault)

    async def _durable(self) -> None:
        """Wait until all that was taken so far is on the disk. Raises what undid it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def tell(fault: Exception | None) -> None:
            if not done.done():
                if fault is None:
                    done.set_result(None)
                else:
                    done.set_exception(fault)

        self._sequencer.when_durable(self._sequencer.number, tell)
        await done


# ---------------------------------------------------------------- the process that computes


class Worker:
    """One process that answers jobs, begun when it is first needed and begun anew when it dies.

    `compute` is imported there by its module and name. A job that takes longer than `longest_s`, or at which the
    process dies `MOST_CRASHES` times, is answered with a fault.
    """

    def __init__(self, compute: Compute, longest_s: float = LONGEST_S) -> None:
        self.longest_s = longest_s
        self._compute = compute
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="coflex-engine")
        self._process: SpawnProcess | None = None
        self._link: Connection | None = None

    async def __call__(self, job: Job) -> Answer:
        """The answer to a job; jobs follow each other."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, job)

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process is not None else None

    def close(self) -> None:
        """End the process, whatever it does."""
        self._end()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _answer(self, job: Job) -> Answer:
        for _ in range(MOST_CRASHES):
            link = self._begun()
            try:
                link.send(job)
                if not link.poll(self.longest_s):
                    self._end()
                    return Answer(fault=f"It took longer than {self.longest_s:g} s.")
                answer: Answer = link.recv()
            except (EOFError, OSError):
                log.warning("the process that computes ended; it is begun anew")
                self._end()
            else:
                return answer
        return Answer(fault=f"The process that computes ended {MOST_CRASHES} times.")

    def _begun(self) -> Connection:
        if self._process is None or self._link is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")
            self._link, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._compute), daemon=True)
            self._process.start()
            theirs.close()
        return self._link

    def _end(self) -> None:
        process, link, self._process, self._link = self._process, self._link, None, None
        if process is not None:
            process.kill()
            process.join(timeout=10)
        if link is not None:
            link.close()


def _end_with_parent() -> None:
    """End at once when the server is gone: nobody waits for the answer, and the next server begins its own."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _serve(link: Connection, compute: Compute) -> None:
    """Answer jobs until nobody asks. Orders come first: the process leaves the processor to the server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(5)
    while True:
        try:
            job = link.recv()
        except EOFError:
            return
        try:
            answer = compute(job)
        except Exception as fault:
            log.exception("%s %s failed", job.work.value, job.subject)
            answer = Answer(fault=f"A fault of the program: {fault!r}.")
        link.send(answer)
