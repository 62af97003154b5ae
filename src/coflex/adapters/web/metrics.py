"""Metrics for Prometheus, and the addresses that machines ask: /metrics, /healthz, /readyz.

What happens is counted as it happens; what is (commands that wait, states of sessions, listeners) is read when somebody
asks. One registry a platform, so that several may live in one process.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import perf_counter
from typing import Any, Protocol, cast

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coflex.adapters.web.api.problems import answer
from coflex.domain.errors import CoflexError, Forbidden
from coflex.register.market import SessionEntry
from coflex.service.ports import Entry, Journal
from coflex.service.sequencer import Unavailable
from coflex.service.state import State

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a counter began says nothing here

_LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SYNCS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
GATE_ACTOR = "clock"


class Working(Protocol):
    """The sequencer, as far as it is watched."""

    @property
    def number(self) -> int: ...
    @property
    def durable_number(self) -> int: ...
    @property
    def ready(self) -> bool: ...
    @property
    def alarm(self) -> str: ...
    @property
    def listeners(self) -> list[Callable[[Entry], None]]: ...


class Metrics:
    """What is counted as it happens."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "coflex_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self._latency = Histogram(
            "coflex_request_seconds", "Time to the end of the answer.", ["route"],
            buckets=_LATENCIES, registry=self.registry,
        )  # fmt: skip
        self._entries = Counter(
            "coflex_journal_entries", "Entries made durable since the start.", ["verb"], registry=self.registry
        )
        self._batch = Histogram(
            "coflex_commit_entries", "Entries in a commit.", buckets=_BATCHES, registry=self.registry
        )
        self._sync = Histogram(
            "coflex_commit_seconds", "Time of a commit, sync included.", buckets=_SYNCS, registry=self.registry
        )
        self._failed = Counter("coflex_commit_failures", "Commits that failed.", ["code"], registry=self.registry)
        self._gates = Counter("coflex_gates", "Gates that were passed.", ["verb"], registry=self.registry)
        # Finding a counter by its labels costs more than counting.
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}
        self._verbs: dict[str, Any] = {}

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `route`: its template, so that there are only so many."""
        key = (method, route, status)
        known = self._children.get(key)
        if known is None:
            known = self._requests.labels(method, route, str(status)), self._latency.labels(route)
            self._children[key] = known
        known[0].inc()
        known[1].observe(seconds)

    def entry(self, entry: Entry) -> None:
        """Count an entry that is durable; a listener of the sequencer."""
        verb = entry.command.verb
        known = self._verbs.get(verb)
        if known is None:
            known = self._verbs[verb] = self._entries.labels(verb)
        known.inc()
        if entry.command.actor == GATE_ACTOR:
            self._gates.labels(verb).inc()

    def measured(self, journal: Journal) -> Journal:
        """The same journal, with the size and time of its commits measured."""
        return cast("Journal", _Measured(journal, self))

    def commit(self, entries: int, seconds: float, fault: Exception | None) -> None:
        if fault is None:
            self._batch.observe(entries)
            self._sync.observe(seconds)
        else:
            self._failed.labels(getattr(fault, "code", type(fault).__name__)).inc()

    def watch(self, sequencer: Working, tenants: Mapping[str, State], others: Watched | None = None) -> None:
        """Read these whenever somebody asks, and count what the sequencer makes durable."""
        sequencer.listeners.append(self.entry)
        self.registry.register(_Now(sequencer, tenants, others or Watched()))


@dataclass(eq=False)
class Watched:
    """What else is read when somebody asks. `webhook_lag`: seconds that the oldest undelivered event has waited,
    None where nothing waits; `listeners`: how many read the feed as a stream."""

    webhook_lag: Callable[[], float | None] = field(default=lambda: None)
    listeners: Callable[[], int] = field(default=lambda: 0)


class _Measured:
    """A journal whose commits are measured; everything else is the journal's own."""

    def __init__(self, journal: Journal, metrics: Metrics) -> None:
        self._journal, self._metrics = journal, metrics

    def append(self, entries: Sequence[Entry]) -> None:
        began = perf_counter()
        try:
            self._journal.append(entries)
        except Exception as fault:
            self._metrics.commit(len(entries), perf_counter() - began, fault)
            raise
        self._metrics.commit(len(entries), perf_counter() - began, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


class _Now(Collector):
    """What is, read when it is asked for."""

    def __init__(self, sequencer: Working, tenants: Mapping[str, State], others: Watched) -> None:
        self._sequencer, self._tenants, self._others = sequencer, tenants, others

    def collect(self) -> Iterator[Metric]:
        sequencer = self._sequencer
        yield _gauge("coflex_journal_number", "Number of the last durable entry.", sequencer.durable_number)
        waiting = sequencer.number - sequencer.durable_number
        yield _gauge("coflex_commands_waiting", "Commands that are decided and not yet durable.", waiting)
        yield _gauge(
            "coflex_alarm", "1 while no commands are taken: the store is lost or broken.", bool(sequencer.alarm)
        )
        yield _gauge("coflex_feed_listeners", "Clients that read the feed as a stream.", self._others.listeners())
        lag = self._others.webhook_lag() or 0.0
        yield _gauge("coflex_webhook_lag_seconds", "How long the oldest undelivered event has waited.", lag)
        sessions = GaugeMetricFamily("coflex_sessions", "Sessions by state.", labels=["tenant", "state"])
        for tenant, state in sorted(self._tenants.items()):
            for name, many in sorted(Tally(one.state for one in state.all(SessionEntry)).items()):
                sessions.add_metric([tenant, str(name)], many)
        yield sessions


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=float(value))


# ---------------------------------------------------------------- the addresses that machines ask


def routes(
    metrics: Metrics,
    sequencer: Working,
    reach_store: Callable[[], object],
) -> list[Route]:
    """/healthz: the process answers. /readyz: commands are taken and the store answers. /metrics: for a scraper on this
    machine alone: they tell of all tenants, so no tenant's key opens them.

    `reach_store` asks the store for something small and raises what hinders it; it runs on a thread of its own.
    """

    async def alive(_: Request) -> Response:
        return _json(200, {"status": "ok"})

    async def ready(_: Request) -> Response:
        if not sequencer.ready:
            return _unready(sequencer.alarm or "The platform is stopping.")
        try:
            await run_in_threadpool(reach_store)
        except Exception as fault:
            return _unready(fault.message if isinstance(fault, CoflexError) else "The store does not answer.")
        return _json(200, {"status": "ok", "entry": sequencer.durable_number})

    async def show(request: Request) -> Response:
        if not from_here(request):
            return answer(Forbidden("The metrics are for this machine alone.", "Scrape them here, or by a tunnel."))
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return [
        Route("/healthz", alive, include_in_schema=False),
        Route("/readyz", ready, include_in_schema=False),
        Route("/metrics", show, include_in_schema=False),
    ]


def from_here(request: Request) -> bool:
    """Whether a request comes from this machine itself, and not through a proxy on it."""
    if request.client is None or "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _unready(reason: str) -> Response:
    return answer(Unavailable(reason, "Ask again in a second; the operator's log says more when it lasts."))


def _json(status: int, body: object) -> Response:
    return Response(msgspec.json.encode(body), status, {"Cache-Control": "no-store"}, "application/json")
