"""How many orders a second the service acknowledges, durably, and how long each of them waits.

    python bench/orders.py                                  # SQLite, and PostgreSQL where one can be started
    python bench/orders.py --seconds 10 --clients 1 64 --stores sqlite

The server is `coflex serve`, with a register of a few thousand units in its store and a session open; every order is an
offer with an idempotency key, checked against the register and against all offers before it. The load comes from a
process of its own on the last processor: plain sockets, kept open, one request at a time on each (closed loop), then at
half the rate that was reached, at times that do not wait for answers (open loop; a wait counts from when the request
was due). Every order that counts was answered with 201 after a sync of the disk. The floor, in the same run and on the
same disk, gets the same requests: Starlette and msgspec on uvicorn, that decode an offer, put its bytes into one table,
many with one commit, and check nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from table import Line, asks_for_lines, give, load

HERE = Path(__file__)
LISTENS = "listens on "
# What is another one in every offer of a description.
UNIQUE, UNIT, START, WAY = "@UNIQUE@", "@UNIT@", "@START@", "@WAY@"
BATCH = 200
CLIENTS = (1, 8, 64, 256)
PARTIES, UNITS = 8, 2_400
# Requests a second that the client may send which then sends ten times as many.
ALLOWED = 100


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True)
class Client:
    """Who sends. `headers`: with its credentials; `units`: what it may offer."""

    headers: dict[str, str]
    units: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """What is sent to a server: `offer`, one JSON object in which the placeholders are replaced, to `path`. A unit is
    offered once in each of the quarter-hours `starts`, up and down."""

    path: str
    offer: dict[str, Any]
    starts: tuple[str, ...]
    clients: tuple[Client, ...]

    @staticmethod
    def read(file: Path) -> Description:
        given = json.loads(file.read_text(encoding="utf-8"))
        clients = tuple(Client(one["headers"], tuple(one["units"])) for one in given["clients"])
        return Description(given["path"], given["offer"], tuple(given["starts"]), clients)


@dataclass(frozen=True)
class Order:
    """What a load process is told, as JSON. `rate`: requests a second, None for a closed loop. `first`: where the
    numbers of its orders begin; `part`, `parts`: which share of the units it offers; `only`: which clients of the
    description send, all if empty; `accept`: statuses that count; `most`: so many requests,
    however long they take; `again`: offer everything again when all was offered, to a server that does not mind."""

    url: str
    description: str
    connections: int
    batch: int
    seconds: float
    first: int
    part: int
    parts: int
    rate: float | None = None
    only: tuple[int, ...] = ()
    accept: tuple[int, ...] = (201,)
    most: int = 0
    again: bool = False


@dataclass(frozen=True)
class Found:
    """What a load process measured: offers acknowledged, seconds, waits in ms, answers by status."""

    orders: int
    seconds: float
    p50: float
    p99: float
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.orders / self.seconds


# ---------------------------------------------------------------- the load


class Connection:
    """A socket that is kept open and has at most one request under way."""

    def __init__(self, order: Order, description: Description, address: tuple[str, int], place: int) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        senders = order.only or tuple(range(len(description.clients)))
        client = description.clients[senders[place % len(senders)]]
        self.due, self._batch, self._answer = 0.0, order.batch, b""
        self._slots = itertools.islice(
            _slots(client.units[order.part :: order.parts], description.starts, order.again),
            place // len(senders),
            None,
            max(1, order.connections // len(senders)),
        )
        self._offer = json.dumps(description.offer, separators=(",", ":"))
        headers = "".join(f"{name}: {value}\r\n" for name, value in client.headers.items())
        self._head = f"POST {description.path} HTTP/1.1\r\nHost: {address[0]}\r\n{headers}"
        self._head += "Content-Type: application/json\r\n"

    def send(self, number: int) -> None:
        offers = []
        for i in range(self._batch):
            unit, start, way = next(self._slots)
            one = self._offer.replace(UNIQUE, f"o{number}-{i}").replace(UNIT, unit)
            offers.append(one.replace(START, start).replace(WAY, way))
        body = offers[0] if self._batch == 1 else f"[{','.join(offers)}]"
        sent = f"{self._head}Idempotency-Key: k{number}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        while sent:
            try:
                sent = sent[self.socket.send(sent) :]
            except BlockingIOError:
                select.select([], [self.socket], [])

    def receive(self) -> int | None:
        """The status once an answer is whole."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionError("the server closed the connection")
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end:
            return None
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return None
        self._answer = body[length:]
        return int(head[9:12])


def _slots(units: Sequence[str], starts: Sequence[str], again: bool) -> Iterator[tuple[str, str, str]]:
    """What can be offered: (unit, quarter-hour, direction), each once, or again and again."""
    every = itertools.product(units, starts, ("up", "down"))
    yield from itertools.cycle(every) if again else every
    raise SystemExit("all quarter-hours of all units are offered; measure for less time, or give more units")


def generate(order: Order) -> Found:
    """Send as told, and measure."""
    description = Description.read(Path(order.description))
    host, port = order.url.removeprefix("http://").split(":")
    every = [Connection(order, description, (host, int(port)), place) for place in range(order.connections)]
    waits, statuses, seconds = _closed(order, every) if order.rate is None else _open(order, every, order.rate)
    if not waits:
        raise SystemExit(f"no order was acknowledged; the answers were {statuses}")
    waits.sort()
    done = sum(statuses.get(status, 0) for status in order.accept)
    return Found(
        done * order.batch,
        seconds,
        1000 * waits[len(waits) // 2],
        1000 * waits[min(len(waits) - 1, int(len(waits) * 0.99))],
        {str(status): count for status, count in sorted(statuses.items())},
    )


def _closed(order: Order, every: Sequence[Connection]) -> tuple[list[float], dict[int, int], float]:
    """Each connection sends its next request as soon as the last one was answered. The first tenth of the time is for
    getting warm and does not count."""
    poll = select.epoll()
    at = {one.socket.fileno(): one for one in every}
    number, waits, statuses = order.first, list[float](), dict[int, int]()
    for one in every:
        poll.register(one.socket, select.EPOLLIN)
        one.due = perf_counter()
        one.send(number)
        number += 1
    began = perf_counter() + (0.0 if order.most else 0.1 * order.seconds)
    until = began + order.seconds if not order.most else float("inf")
    while (now := perf_counter()) < until and (not order.most or len(waits) < order.most):
        for file, _ in poll.poll(min(1.0, until - now)):
            one = at[file]
            status = one.receive()
            if status is None:
                continue
            now = perf_counter()
            if now >= began:
                statuses[status] = statuses.get(status, 0) + 1
                if status in order.accept:
                    waits.append(now - one.due)
            one.due = now
            one.send(number)
            number += 1
    return waits, statuses, perf_counter() - began


def _open(order: Order, every: Sequence[Connection], rate: float) -> tuple[list[float], dict[int, int], float]:
    """Requests are due at their times, whether earlier ones were answered or not."""
    poll = select.epoll()
    at = {one.socket.fileno(): one for one in every}
    for one in every:
        poll.register(one.socket, select.EPOLLIN)
    free, due = deque(every), deque[float]()
    number, waits, statuses = order.first, list[float](), dict[int, int]()
    began = perf_counter()
    made = answered = 0
    total = int(order.seconds * rate)
    while answered < total:
        now = perf_counter()
        while made < total and began + made / rate <= now:
            due.append(began + made / rate)
            made += 1
        while free and due:
            one = free.popleft()
            one.due = due.popleft()
            one.send(number)
            number += 1
        pause = max(0.0, began + made / rate - perf_counter()) if made < total else 1.0
        for file, _ in poll.poll(pause):
            one = at[file]
            status = one.receive()
            if status is None:
                continue
            answered += 1
            statuses[status] = statuses.get(status, 0) + 1
            if status in order.accept:
                waits.append(perf_counter() - one.due)
            free.append(one)
        if perf_counter() - began > 4 * order.seconds:
            raise SystemExit(f"{total - answered} of {total} requests had no answer in four times the time")
    return waits, statuses, perf_counter() - began


@dataclass
class Load:
    """Load processes for a server, with orders that are never the same twice. `parts`: how many there will be."""

    url: str
    description: Path
    seconds: float
    parts: int
    part: int = 0

    def run(self, connections: int, batch: int = 1, rate: float | None = None, **more: Any) -> Found:
        return self.begin(connections, batch, rate, **more)()

    def begin(self, connections: int, batch: int = 1, rate: float | None = None, **more: Any) -> Callable[[], Found]:
        """Start a load; what is returned waits for its end."""
        first = 10_000_000 * self.part
        order = Order(
            self.url,
            str(self.description),
            connections,
            batch,
            self.seconds,
            first,
            self.part,
            self.parts,
            rate,
            **more,
        )
        self.part += 1
        command = [sys.executable, str(HERE), "load", json.dumps(asdict(order))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

        def end() -> Found:
            said, _ = process.communicate()
            if process.returncode:
                raise SystemExit(f"the load failed: {said}")
            return Found(**json.loads(said))

        return end


# ---------------------------------------------------------------- the floor


def floor(store: str) -> None:
    """A bare server: decode, append, commit many at once, answer. Ends on SIGTERM."""
    import msgspec
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from coflex.service.verbs.offers import SUBMIT

    loop_of: list[asyncio.AbstractEventLoop] = []
    writer = Writer(store, lambda act: loop_of[0].call_soon_threadsafe(act))
    decoder = msgspec.json.Decoder(SUBMIT.form)

    async def submit(request: Request) -> Response:
        raw = await request.body()
        decoder.decode(raw)
        if not loop_of:
            loop_of.append(asyncio.get_running_loop())
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        writer.put(raw, done)
        number = await done
        return Response(b'{"entry":%d}' % number, 201, media_type="application/json")

    app = Starlette(routes=[Route("/v1/{tenant}/sessions/{session}/offers", submit, methods=["POST"])])
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"floor {LISTENS}http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="error")
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listener])


class Writer:
    """A thread that appends what waits to one table, with one commit."""

    def __init__(self, store: str, deliver: Callable[[Callable[[], None]], object]) -> None:
        self._store, self._deliver = store, deliver
        self._waiting: list[tuple[bytes, asyncio.Future[int]]] = []
        self._wake = threading.Condition()
        threading.Thread(target=self._write, daemon=True).start()

    def put(self, raw: bytes, done: asyncio.Future[int]) -> None:
        with self._wake:
            self._waiting.append((raw, done))
            self._wake.notify()

    def _write(self) -> None:
        append = _append_to(self._store)
        number = 0
        while True:
            with self._wake:
                while not self._waiting:
                    self._wake.wait()
                batch, self._waiting = self._waiting, []
            append([(number + i, raw) for i, (raw, _) in enumerate(batch, start=1)])
            first, number = number + 1, number + len(batch)

            def tell(batch: list[tuple[bytes, asyncio.Future[int]]] = batch, first: int = first) -> None:
                for i, (_, done) in enumerate(batch):
                    if not done.done():
                        done.set_result(first + i)

            self._deliver(tell)


def _append_to(store: str) -> Callable[[list[tuple[int, bytes]]], None]:
    """Rows into one table with one commit and one sync."""
    if not store.startswith("postgresql"):
        database = sqlite3.connect(store, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("CREATE TABLE IF NOT EXISTS taken (number INTEGER PRIMARY KEY, body BLOB NOT NULL)")

        def append(rows: list[tuple[int, bytes]]) -> None:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO taken VALUES (?, ?)", rows)
            database.execute("COMMIT")

        return append
    return _append_to_server(store)


def _append_to_server(url: str) -> Callable[[list[tuple[int, bytes]]], None]:
    from sqlalchemy import create_engine, make_url

    connection: Any = create_engine(make_url(url).set(drivername="postgresql+pg8000")).raw_connection()
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE IF NOT EXISTS taken (number BIGINT PRIMARY KEY, body BYTEA NOT NULL)")
    cursor.execute("TRUNCATE taken")
    connection.commit()

    def append(rows: list[tuple[int, bytes]]) -> None:
        cursor.execute(
            "INSERT INTO taken SELECT * FROM unnest(CAST(%s AS BIGINT[]), CAST(%s AS BYTEA[]))",
            ([number for number, _ in rows], [raw for _, raw in rows]),
        )
        connection.commit()

    return append


# ---------------------------------------------------------------- servers


@contextlib.contextmanager
def served(command: Sequence[str]) -> Iterator[str]:
    """The URL of a server that a command starts and that says where it listens; ended with SIGTERM."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        for row in process.stdout:
            if LISTENS in row:
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield row.rpartition(LISTENS)[2].strip()
                break
        else:
            raise SystemExit(f"{' '.join(command)} ended without saying where it listens")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Stores:
    """Stores that hold the register and an open session, made once and copied: a folder a name, and a database a name
    where they are kept in PostgreSQL. `server`: URL of a PostgreSQL server, None for SQLite."""

    room: Path
    server: str | None
    made: int = 0

    @property
    def kind(self) -> str:
        return "SQLite" if self.server is None else "PostgreSQL"

    @contextlib.contextmanager
    def fresh(self) -> Iterator[tuple[Path, str | None]]:
        """A copy that nobody wrote to: its folder, and its URL where it is no file there."""
        self.made += 1
        folder = self.room / f"{self.kind}-{self.made}"
        folder.mkdir(mode=0o700)
        if self.server is None:
            if not (first := self.room / "first.db").exists():
                prepare(first)
            shutil.copy(first, folder / "coflex.db")
            yield folder, None
            return
        name = f"coflex_bench_{os.getpid()}_{self.made}"
        with _database(self.server, name) as url:
            prepare(url)
            yield folder, url


@contextlib.contextmanager
def _database(server: str, name: str) -> Iterator[str]:
    from sqlalchemy import create_engine, make_url, text

    given = make_url(server).set(drivername="postgresql+pg8000")
    engine = create_engine(given, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield given.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()


def prepare(store: Path | str) -> None:
    """Write the register into a new store, and open the session."""
    platform = _platform()
    from coflex.adapters.store.journal import SqlJournal
    from coflex.register.access import Client as ApiClient
    from coflex.register.access import ClientScope, Rates

    journal = SqlJournal(store)
    desk = platform.desk(journal)
    for command in platform.ready(UNITS, PARTIES):
        desk.submit(command)
    known = desk.machine.state(platform.TENANT).get(ApiClient, f"client-{_party(PARTIES - 1)}")
    rates = Rates(ALLOWED, 2 * ALLOWED, 10 * ALLOWED, 10 * ALLOWED)
    scopes = (ClientScope.READ, ClientScope.WRITE)
    few = ApiClient(**{**_fields(known), "id": f"client-{FEW}", "scopes": scopes, "rates": rates})
    desk.submit(platform.put([few]))
    desk.pass_gates()
    journal.close()


# The client that may send little.
FEW = "few"


def described() -> Description:
    """What is sent to a server on a prepared store: the last client is the one that may send little."""
    platform = _platform()
    offer = platform.offer(UNIQUE, 1, 0, (10,), direction=WAY)
    offer |= {"unit": UNIT}
    offer["steps"][0]["start"] = START
    starts = [(platform.FIRST_START + timedelta(minutes=15 * quarter)).isoformat() for quarter in range(96)]
    units: dict[str, list[str]] = {}
    for unit in range(UNITS):
        units.setdefault(platform.provider_of(unit, PARTIES), []).append(f"cu-{unit + 1:04d}")
    clients = [Client(_signed(platform.key_of(party)), tuple(mine)) for party, mine in sorted(units.items())]
    last = clients[-1]
    clients.append(Client(_signed(platform.key_of(_party(PARTIES - 1)).replace(_party(PARTIES - 1), FEW)), last.units))
    path = f"/v1/{platform.TENANT}/sessions/{platform.FIRST}/offers"
    return Description(path, offer, tuple(starts), tuple(clients))


def _platform() -> Any:
    sys.path.insert(0, str(HERE.parent.parent / "tests"))
    from support import platform

    return platform


def _party(number: int) -> str:
    return f"sp-{number + 1}"


def _signed(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _fields(record: Any) -> dict[str, Any]:
    return {one.name: getattr(record, one.name) for one in fields(record)}


def coflex(folder: Path, url: str | None) -> list[str]:
    """The command that serves a prepared store."""
    command = [sys.executable, "-m", "coflex", "serve", "--no-demo", "--port", "0", "--data", str(folder)]
    return command if url is None else [*command, "--database-url", url]


# ---------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Reached:
    """What one server did."""

    single: dict[int, Found]
    batches: Found
    half: Found

    @property
    def best(self) -> Found:
        return max(self.single.values(), key=lambda one: one.rate)


Serving = Callable[[], contextlib.AbstractContextManager[str]]


def measure(serving: Serving, description: Path, given: argparse.Namespace, again: bool = False) -> Reached:
    """Singles with so many clients, singles at half the best rate, and batches."""
    seconds, clients = given.seconds, given.clients
    everybody: dict[str, Any] = {"only": tuple(range(PARTIES)), "again": again}
    with serving() as url:
        load = Load(url, description, seconds, len(clients) + 1)
        single = {}
        for many in clients:
            single[many] = load.run(many, **everybody)
            _tell(f"{many} clients", single[many])
        best = max(one.rate for one in single.values())
        half = load.run(64, rate=best / 2, **everybody)
        _tell("half the best rate, open loop", half)
    with serving() as url:
        batches = Load(url, description, seconds, 1).run(8, BATCH, **everybody)
        _tell(f"batches of {BATCH}, 8 clients", batches)
    return Reached(single, batches, half)


def beside_a_nuisance(serving: Serving, description: Path, seconds: float, rate: float) -> tuple[Found, Found]:
    """Waits of others at an open loop of `rate`, alone, and beside a client that sends ten times what it may."""
    others = tuple(range(PARTIES))
    with serving() as url:
        load = Load(url, description, seconds, 3)
        alone = load.run(64, rate=rate, only=others)
        _tell("others alone", alone)
        nuisance = load.begin(8, rate=10 * ALLOWED, only=(PARTIES,), accept=(201, 429))
        beside = load.run(64, rate=rate, only=others)
        _tell("others beside the nuisance", beside)
        _tell("the nuisance", nuisance())
    return alone, beside


def restart(stores: Stores, description: Path, entries: int) -> float:
    """Seconds from the start of a server to its first answer, with so many orders in its store."""
    with stores.fresh() as (folder, url):
        with served(coflex(folder, url)) as address:
            everybody = tuple(range(PARTIES))
            orders = Load(address, description, 1.0, 1).run(64, only=everybody, most=entries).orders
        print(f"  {orders} orders are there; the server is started anew", flush=True)
        began = perf_counter()
        with served(coflex(folder, url)) as address:
            urllib.request.urlopen(f"{address}/readyz", timeout=30).read()
            return perf_counter() - began


def _tell(what: str, found: Found) -> None:
    print(
        f"  {what:32} {found.rate:9,.0f} orders/s   p50 {found.p50:7.2f} ms   p99 {found.p99:7.2f} ms   "
        f"{', '.join(f'{count} x {status}' for status, count in found.statuses.items())}",
        flush=True,
    )


def main() -> None:
    """Measure, and print the table."""
    if sys.argv[1:2] == ["load"]:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        print(json.dumps(asdict(generate(Order(**_tuples(json.loads(sys.argv[2])))))))
        return
    if sys.argv[1:2] == ["floor"]:
        floor(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--stores", nargs="+", choices=("sqlite", "postgresql"), default=("sqlite", "postgresql"))
    parser.add_argument("--postgresql", metavar="URL", default=LOCAL, help=f"a server's maintenance database ({LOCAL})")
    parser.add_argument("--entries", type=int, default=100_000, help="orders in the store that is started anew")
    parser.add_argument("--room", type=Path, help="folder on the disk that is measured; a new one if not given")
    asks_for_lines(parser)
    given = parser.parse_args()
    load("before")
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(dir=given.room) as name:
        room = Path(name)
        description = room / "description.json"
        description.write_text(json.dumps(asdict(described())), encoding="utf-8")
        if "sqlite" in given.stores:
            lines += of_store(Stores(room, None), description, given)
        if "postgresql" in given.stores:
            with postgresql(given.postgresql, room) as server:
                lines += of_store(Stores(room, server), description, given) if server else []
    load("after")
    give(lines, given.lines)


LOCAL = "postgresql://postgres@127.0.0.1:5432/postgres"


@contextlib.contextmanager
def postgresql(url: str, room: Path) -> Iterator[str | None]:
    """A PostgreSQL server: the one of the URL, or one that is started in the room; None without any."""
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        create_engine(make_url(url).set(drivername="postgresql+pg8000")).connect().close()
    except (SQLAlchemyError, OSError):
        print(f"no PostgreSQL answers at {make_url(url).render_as_string()}: it is left out", flush=True)
        yield None
    else:
        yield url


def of_store(stores: Stores, description: Path, given: argparse.Namespace) -> list[Line]:
    """Everything on one kind of store."""

    @contextlib.contextmanager
    def bare() -> Iterator[str]:
        stores.made += 1
        if stores.server is None:
            with served([sys.executable, str(HERE), "floor", str(stores.room / f"floor-{stores.made}.db")]) as url:
                yield url
            return
        with (
            _database(stores.server, f"coflex_floor_{os.getpid()}_{stores.made}") as database,
            served([sys.executable, str(HERE), "floor", database]) as url,
        ):
            yield url

    @contextlib.contextmanager
    def ours() -> Iterator[str]:
        with stores.fresh() as (folder, url), served(coflex(folder, url)) as address:
            yield address

    kind = stores.kind
    print(f"{kind}: the floor", flush=True)
    floors = measure(bare, description, given, again=True)
    print(f"{kind}: coflex", flush=True)
    reached = measure(ours, description, given)
    print(f"{kind}: a client that sends ten times what it may", flush=True)
    alone, beside = beside_a_nuisance(ours, description, given.seconds, min(500.0, reached.best.rate / 4))
    seconds = restart(stores, description, given.entries)
    lines = [_line(f"{kind}, {many} clients", one, floors.single[many]) for many, one in reached.single.items()]
    lines.append(_line(f"{kind}, batches of {BATCH}", reached.batches, floors.batches))
    half = f"p99 at half of that, {reached.half.rate:,.0f}/s"
    lines.append(
        Line(f"{kind}, {half}", f"{reached.half.p99:.1f} ms", reached.half.p99 / floors.half.p99, "the floor's")
    )
    lines.append(Line(f"{kind}, p99 beside a nuisance", f"{beside.p99:.1f} ms", beside.p99 / alone.p99, "alone"))
    what = f"{kind}, start with {given.entries:,} orders"
    return [*lines, Line(what, f"{seconds:.2f} s", seconds / 5.0, "5 s", at_most=1.0)]


def _line(what: str, ours: Found, bare: Found) -> Line:
    return Line(what, f"{ours.rate:,.0f}/s", ours.rate / bare.rate, f"the floor, {bare.rate:,.0f}/s")


def _tuples(given: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


if __name__ == "__main__":
    main()
