"""Measurements of a city, taken by `coflex ingest` for as long as it is asked: every reading certified and durable.

    python bench/ingest.py                                # 580,000 points for a minute
    python bench/ingest.py --seconds 600                  # for ten
    python bench/ingest.py --seconds 20 --points 58000 --connections 200

Each point has a key of its own and signs one message of 15 readings, 4 s each, a minute. Concentrators carry 290 points
each over one connection that stays open, and send what their points signed every 6 s. The fleet is a process beside the
ingest on the same machine; its messages were signed ahead into a file, with the time at which they are sent. It sends
by the clock and does not wait for answers (open loop): a wait counts from when a batch was due to when its answer is
there, which names the signed checkpoint that covers it. Afterwards every message is read back from the log, byte by
byte, the tree is computed anew, and the rows of the tables are counted. Processor times and memory are those of the
system, of the ingest and of the processes that it starts.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from table import Line, asks_for_lines, give, load

READINGS, STEP_MS, MINUTE_S = 15, 4_000, 60
A_POINT = 290
EVERY_S = 6
ROUNDS = MINUTE_S // EVERY_S
MESSAGE_BYTES = 24 + 20 + 2 * READINGS + 64
TENANT, ORIGIN = "bench", "coflex/bench/measurements"
LISTENS = "listens on "
GOAL, P99_S = 145_000, 2.0
HEADER = np.dtype(
    [("form", "u1"), ("kind", "u1"), ("length", "<u2"), ("signer", "<u4"), ("sequence", "<u8"), ("signed_at", "<i8")]
)


@dataclass(frozen=True)
class Fleet:
    """Who sends what: `connections` of A_POINT points each, for `seconds`, from `start` on, s since the epoch.

    In round r of its connection, every EVERY_S seconds, the points r, r + ROUNDS, ... of it bring a message each. The
    file holds the batches in the order of connection and round.
    """

    connections: int
    seconds: int
    start: float

    @property
    def points(self) -> int:
        return self.connections * A_POINT

    @property
    def rounds(self) -> int:
        return self.seconds // EVERY_S

    @property
    def batch(self) -> int:
        return A_POINT // ROUNDS

    @property
    def messages(self) -> int:
        return self.connections * self.rounds * self.batch

    def due(self, connection: int, turn: int) -> float:
        """Connections are spread evenly over the time between two rounds."""
        return self.start + EVERY_S * (turn + connection / self.connections)

    def place(self, point: Any, sequence: Any) -> Any:
        """Where a message stands in the file, counted in messages."""
        connection, within = point // A_POINT, point % A_POINT
        turn = (sequence - 1) * ROUNDS + within % ROUNDS
        return (connection * self.rounds + turn) * self.batch + within // ROUNDS


# ---------------------------------------------------------------- keys and signatures, ahead of time


def seed_of(point: int) -> bytes:
    return hashlib.sha256(b"bench point %d" % point).digest()


def publics(points: range) -> bytes:
    from coflex.evidence import keys

    return b"".join(keys.public_of(seed_of(point)) for point in points)


def write_points(count: int, path: Path) -> None:
    """The table of registered keys."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ProcessPoolExecutor() as pool:
        parts = list(pool.map(publics, ranges(count, 10_000)))
    raw = b"".join(parts)
    held = [raw[at : at + 32] for at in range(0, len(raw), 32)]
    owners = [f"provider-{point // A_POINT % 14}" for point in range(count)]
    pq.write_table(pa.table({"point": np.arange(count, dtype=np.uint32), "public_key": held, "owner": owners}), path)


def sign(fleet: Fleet, path: Path, connections: range) -> None:
    """Write the messages of some connections to their places in the file."""
    from coflex.evidence import keys, message

    with path.open("r+b") as file:
        for connection in connections:
            signers = [keys.signer(seed_of(connection * A_POINT + within)) for within in range(A_POINT)]
            draw = np.random.default_rng(connection)
            # A household: some hundred W, and a few W of noise from one 4 s to the next.
            base = draw.integers(-3_000, 200, A_POINT)
            file.seek(connection * fleet.rounds * fleet.batch * MESSAGE_BYTES)
            for turn in range(fleet.rounds):
                at = round(fleet.due(connection, turn) * 1000)
                values = base[turn % ROUNDS :: ROUNDS, None] + draw.normal(0, 6, (fleet.batch, READINGS)).astype(int)
                for i in range(fleet.batch):
                    within = i * ROUNDS + turn % ROUNDS
                    body = message.measurement(
                        at // STEP_MS * STEP_MS - READINGS * STEP_MS, STEP_MS, 1, values[i].tolist(), width=2
                    )
                    told = signers[within].sign
                    point = connection * A_POINT + within
                    file.write(message.seal(told, message.Kind.MEASUREMENT, point, turn // ROUNDS + 1, at, body))


def ranges(count: int, each: int) -> list[range]:
    return [range(at, min(at + each, count)) for at in range(0, count, each)]


def sign_all(connections: int, seconds: int, path: Path) -> Fleet:
    """All messages of the run, signed before it with the times at which they will be sent."""
    parts = ranges(connections, 10)
    began = time.perf_counter()
    trial = Fleet(10, min(seconds, MINUTE_S), time.time())
    path.write_bytes(b"")
    sign(trial, path, range(5))
    each = (time.perf_counter() - began) / 5 * seconds / min(seconds, MINUTE_S)
    fleet = Fleet(connections, seconds, time.time() + each * connections / (os.cpu_count() or 1) * 1.2 + 15)
    with path.open("wb") as file:
        file.truncate(fleet.messages * MESSAGE_BYTES)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(sign, fleet, path), parts))
    return fleet


# ---------------------------------------------------------------- the fleet


class Connection:
    """A concentrator's socket; its batches wait for one another's answers no longer than HTTP asks: not at all."""

    def __init__(self, address: tuple[str, int], head: bytes) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.head, self.left, self.unread = head, b"", b""
        self.due: list[float] = []
        self.turn = 0

    def send(self, batch: bytes, due: float) -> None:
        self.due.append(due)
        self.left += self.head + batch
        self.flush()

    def flush(self) -> None:
        while self.left:
            try:
                self.left = self.left[self.socket.send(self.left) :]
            except BlockingIOError:
                return

    def answers(self) -> Iterator[dict[str, Any]]:
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("the ingest closed a connection")
        self.unread += data
        while True:
            head, end, body = self.unread.partition(b"\r\n\r\n")
            at = head.lower().find(b"content-length:")
            if not end or at < 0:
                return
            length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(body) < length:
                return
            self.unread = body[length:]
            if head[9:12] != b"200":
                raise ConnectionError(f"the ingest answered {body[:length].decode()}")
            yield json.loads(body[:length])


def send_all(url: str, fleet: Fleet, path: Path) -> dict[str, Any]:
    """The fleet's run: what was acknowledged, and the waits in seconds."""
    host, _, port = url.removeprefix("http://").partition(":")
    size = fleet.batch * MESSAGE_BYTES
    head = (
        f"POST /v1/{TENANT}/measurements HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/vnd.coflex.messages\r\n"
        f"Content-Length: {size}\r\n\r\n"
    ).encode()
    poll = selectors.DefaultSelector()
    connections = [Connection((host, int(port)), head) for _ in range(fleet.connections)]
    for one in connections:
        poll.register(one.socket, selectors.EVENT_READ, one)
    data = np.memmap(path, np.uint8, "r")
    total = fleet.connections * fleet.rounds
    waits = np.empty(total)
    accepted = answered = sent = 0
    late = max(0.0, time.time() - fleet.start)
    while answered < total:
        now = time.time() - late
        while sent < total and fleet.due(sent % fleet.connections, sent // fleet.connections) <= now:
            place, turn = sent % fleet.connections, sent // fleet.connections
            at = (place * fleet.rounds + turn) * size
            connections[place].send(data[at : at + size].tobytes(), fleet.due(place, turn) + late)
            sent += 1
        for key, _ in poll.select(0.002 if sent < total else 0.1):
            for told in key.data.answers():
                waits[answered] = time.time() - key.data.due.pop(0)
                accepted += told["accepted"]
                answered += 1
        for one in connections if sent == total else ():
            one.flush()
        if time.time() - late > fleet.start + fleet.seconds + 60:
            break
    ended = time.time()
    used = os.times()
    return {
        "accepted": accepted, "answered": answered, "seconds": ended - fleet.start - late, "late": late,
        "processor": used.user + used.system,
        "p50": float(np.quantile(waits[:answered], 0.5)), "p99": float(np.quantile(waits[:answered], 0.99)),
        "most": float(waits[:answered].max()),
    }  # fmt: skip


# ---------------------------------------------------------------- the ingest, watched


class Watch(threading.Thread):
    """Memory in MiB and processor seconds of a process and of those that it started, every second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._end = pid, threading.Event()
        self.memory: list[float] = []

    def run(self) -> None:
        while not self._end.wait(1.0):
            with contextlib.suppress(OSError):
                self.memory.append(self.now())

    def now(self) -> float:
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def processor(self) -> float:
        """Of all that run, and of those that ended and that their parent waited for."""
        ticks = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def _pids(self) -> list[int]:
        threads = Path(f"/proc/{self._pid}/task").iterdir()
        children = [int(one) for thread in threads for one in (thread / "children").read_text().split()]
        return [self._pid, *children]

    def stop(self) -> None:
        self._end.set()
        self.join()


@contextlib.contextmanager
def serving(room: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`coflex ingest` over a folder of the room, and its address; stopped in good order."""
    command = [sys.executable, "-m", "coflex", "ingest", "--points", str(room / "points.parquet"), "--origin", ORIGIN]
    command += ["--data", str(room / "data"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if LISTENS in line:
                    yield line.rpartition(LISTENS)[2].strip(), process
                    break
            else:
                raise RuntimeError("coflex ingest did not start")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


# ---------------------------------------------------------------- what is there afterwards


@dataclass(frozen=True)
class Found:
    """What the folder holds: `messages` of those sent, byte by byte and each once; `others`; rows and bytes."""

    messages: int
    others: int
    rows: int
    raw_bytes: int
    table_rows: int
    table_bytes: int
    size: int


def read_back(data: Path, fleet: Fleet, path: Path) -> Found:
    """Read everything back, compute the tree anew, and compare with the last checkpoint and with what was sent."""
    import pyarrow.parquet as pq

    from coflex.adapters.measurements.segment import commits
    from coflex.evidence.checkpoint import parse_note
    from coflex.evidence.merkle import CompactRange, leaf_hash

    sent = np.memmap(path, np.uint8, "r").reshape(-1, MESSAGE_BYTES)
    seen = np.zeros(len(sent), np.uint8)
    tree, others, note, raw_bytes = CompactRange(), 0, "", 0
    for file in sorted((data / "raw").glob("*.log")):
        whole = file.read_bytes()
        raw_bytes += len(whole)
        for commit in commits(whole):
            tree.append_many(list(map(leaf_hash, commit.messages)))
            note = commit.note
            mine = [raw for raw in commit.messages if len(raw) == MESSAGE_BYTES]
            others += len(commit.messages) - len(mine)
            rows = np.frombuffer(b"".join(mine), np.uint8).reshape(-1, MESSAGE_BYTES)
            heads = rows[:, : HEADER.itemsize].copy().view(HEADER)[:, 0]
            places = fleet.place(heads["signer"].astype(np.int64), heads["sequence"].astype(np.int64))
            same = (sent[places] == rows).all(axis=1)
            others += int((~same).sum())
            np.add.at(seen, places[same], 1)
    told = parse_note(note).checkpoint
    if (told.size, told.root) != (tree.size, tree.root()):
        raise RuntimeError("the tree of what was read back is not that of the last checkpoint")
    tables = sorted((data / "tables").glob("*.parquet"))
    rows_there = sum(pq.read_metadata(one).num_rows for one in tables)
    return Found(
        int((seen == 1).sum()), others + int((seen > 1).sum()), int(seen.sum()) * READINGS, raw_bytes, rows_there,
        sum(one.stat().st_size for one in tables), tree.size,
    )  # fmt: skip


def bare_checks(count: int = 20_000) -> float:
    """Processor seconds of a bare signature check of a message of that length."""
    from coflex.evidence import keys

    seed, data = seed_of(0), bytes(MESSAGE_BYTES - 64)
    public, signature = keys.public_of(seed), keys.sign(seed, data)
    began = time.process_time()
    for _ in range(count):
        keys.verify(public, data, signature)
    return (time.process_time() - began) / count


# ---------------------------------------------------------------- the run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="how long measurements come; a multiple of 6")
    parser.add_argument("--points", type=int, default=580_000, help="a multiple of 290")
    parser.add_argument("--room", type=Path, help="folder for what is written; a new one, removed at the end, if none")
    asks_for_lines(parser)
    given = parser.parse_args()
    load("before")
    with contextlib.ExitStack() as stack:
        room = given.room or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        room.mkdir(parents=True, exist_ok=True)
        give(measure(room, given.points // A_POINT, given.seconds), given.lines)


def timed(what: str, act: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = act()
    print(f"{what}: {time.perf_counter() - began:.0f} s", flush=True)
    return result


def measure(room: Path, connections: int, seconds: int) -> list[Line]:
    points, messages = room / "points.parquet", room / "messages"
    timed(f"{connections * A_POINT:,} keys", lambda: write_points(connections * A_POINT, points))
    bare = bare_checks()
    fleet: Fleet = timed("messages signed ahead", lambda: sign_all(connections, seconds, messages))
    with serving(room) as (url, process):
        watch = Watch(process.pid)
        watch.start()
        while time.time() < fleet.start - 1:
            time.sleep(0.2)
        before = watch.processor()
        with ProcessPoolExecutor(1) as pool:
            told = pool.submit(send_all, url, fleet, messages).result()
        used = watch.processor() - before
        watch.stop()
    found: Found = timed("read back", lambda: read_back(room / "data", fleet, messages))
    tell(fleet, told, found, used, watch.memory, bare)
    return lines(fleet, told, found, used, watch.memory, bare)


def tell(fleet: Fleet, told: dict[str, Any], found: Found, used: float, memory: list[float], bare: float) -> None:
    """The words around the lines."""
    print(f"{fleet.points:,} points, {fleet.connections:,} connections, {fleet.messages:,} messages of {READINGS}")
    print(f"acknowledged {told['accepted']:,} in {told['seconds']:.1f} s; the first was sent {told['late']:.1f} s late")
    print(
        f"waits: median {told['p50'] * 1e3:.0f} ms, p99 {told['p99'] * 1e3:.0f} ms, longest {told['most'] * 1e3:.0f} ms"
    )
    print(f"ingest: {used:.1f} s of processor; fleet beside it: {told['processor']:.1f} s")
    print(f"of that {found.messages * bare:.1f} s are bare signature checks of {bare * 1e6:.0f} us")
    step = max(1, len(memory) // 12)
    print("memory in MiB: " + ", ".join(f"{one:.0f}" for one in memory[::step]))
    print(
        f"log: {found.size:,} leaves, {found.raw_bytes / max(1, found.size):.0f} bytes each; {found.others} of others"
    )
    each = found.table_bytes / max(1, found.table_rows)
    print(f"tables: {found.table_rows:,} rows so far, {each:.2f} bytes each")


def lines(
    fleet: Fleet, told: dict[str, Any], found: Found, used: float, memory: list[float], bare: float
) -> list[Line]:
    asked = fleet.points * READINGS / MINUTE_S
    # The last batch is due at the end and answered a moment after it: up to the goal of p99 that is no shortfall.
    wall = max(told["seconds"], fleet.seconds)
    kept = fleet.seconds / max(fleet.seconds, told["seconds"] - P99_S)
    share = told["accepted"] / fleet.messages * kept
    once = (found.messages - found.others) / fleet.messages
    each = used / max(1, told["accepted"])
    later = max(1, len(memory) * 2 // 3)
    flat = max(memory[later:]) / max(memory[:later])
    rate = f"{told['accepted'] * READINGS / wall:,.0f}/s"
    return [
        Line("measurements certified and durable", rate, share, f"{asked:,.0f}/s offered", at_least=1.0),
        Line("read back, byte by byte, each once", f"{found.messages:,}", once, "messages sent", at_least=1.0),
        Line("p99 from due to checkpoint", f"{told['p99'] * 1e3:.0f} ms", told["p99"] / P99_S, "2 s", at_most=1.0),
        Line("processors of the ingest", f"{used / wall:.2f}", used / wall / 2, "2 processors", at_most=1.0),
        Line("its time a message", f"{each * 1e6:.0f} us", each / bare, f"a signature check, {bare * 1e6:.0f} us"),
        Line("memory, last third", f"{max(memory[later:]):.0f} MiB", flat, "the most before it", at_most=1.1),
    ]


if __name__ == "__main__":
    main()
