"""What a kill -9 of the ingest leaves: every acknowledged measurement once and provable, the rest sent again."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

from coflex.adapters.measurements.log import Log
from coflex.evidence.checkpoint import parse_note
from coflex.evidence.merkle import leaf_hash, verify_consistency, verify_inclusion
from coflex.evidence.message import HEADER
from support.measuring import ORIGIN, Device, Ingest, start, write_points

SENDERS, DEVICES = 4, 6


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Sender(threading.Thread):
    """A concentrator: sends batches of its devices one after another, each again until it is acknowledged."""

    def __init__(self, devices: list[Device], here: Ingest, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.devices, self.here, self._stopped = devices, here, stop
        self.sent: list[bytes] = []
        self.notes: list[str] = []
        self.duplicates = self.again = 0
        self.wrong: list[Any] = []

    def run(self) -> None:
        chance = random.Random(self.devices[0].point)
        while not self._stopped.is_set():
            count = chance.choice([1, 1, 3, 20])
            batch = [one.next(step=50, values=[1, 2]) for _ in range(count) for one in self.devices]
            told = self._acknowledged(b"".join(batch))
            self.sent += batch
            self.notes.append(told["checkpoint"])
            self.duplicates += told["duplicates"]
            if told["refused"] or told["gaps"] or told["accepted"] + told["duplicates"] != len(batch):
                self.wrong.append(told)

    def _acknowledged(self, batch: bytes) -> dict[str, Any]:
        while True:
            try:
                return self.here.post(batch)
            except (URLError, HTTPError, OSError, http.client.HTTPException, ValueError):
                self.again += 1
                time.sleep(0.02)


@pytest.mark.spec("CERT-01")
@pytest.mark.parametrize("kills", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_every_acknowledged_measurement_is_there_once_after_each_kill(tmp_path: Path, kills: int) -> None:
    begin = time.time_ns() // 1_000_000 - 9 * 60_000
    devices = [Device(point, begin, every=100) for point in range(SENDERS * DEVICES)]
    points, data, port = write_points(devices, tmp_path / "points.csv"), tmp_path / "data", free_port()
    here, stop = start(points, data, port=port), threading.Event()
    senders = [Sender(devices[i::SENDERS], here, stop) for i in range(SENDERS)]
    chance = random.Random(kills)
    try:
        for sender in senders:
            sender.start()
        for _ in range(kills):
            time.sleep(chance.uniform(0.02, 0.5))
            here.kill()
            here.process = start(points, data, port=port).process
        time.sleep(0.2)
        stop.set()
        for sender in senders:
            sender.join(20)
        assert here.stop() == 0
    finally:
        stop.set()
        here.process.kill()
    assert [sender.wrong for sender in senders] == [[]] * SENDERS
    assert sum(sender.again for sender in senders) >= kills
    check(data, [raw for sender in senders for raw in sender.sent], [one for s in senders for one in s.notes])


def check(data: Path, sent: list[bytes], notes: list[str]) -> None:
    """All that was acknowledged is in the log, once, byte by byte; every checkpoint ever told is a beginning of it."""
    log = Log(data, ORIGIN)
    log.recover(lambda state: None, lambda raws, at: None)
    try:
        there = log.read(0, log.size)
        assert sorted(there) == sorted(sent)
        assert len(set(there)) == len(there)
        last = parse_note(log.note).checkpoint
        for leaf in range(0, last.size, 1 + last.size // 200):
            proof = log.inclusion(leaf, last.size)
            assert verify_inclusion(leaf_hash(there[leaf]), leaf, last.size, proof, last.root)
        for note in notes[:: 1 + len(notes) // 200]:
            old = parse_note(note).checkpoint
            proof = log.consistency(old.size, last.size)
            assert verify_consistency(old.size, last.size, old.root, last.root, proof)
        order: dict[int, int] = {}
        for raw in there:
            _, _, _, signer, sequence, _ = HEADER.unpack_from(raw)
            assert sequence == order.get(signer, 0) + 1
            order[signer] = sequence
    finally:
        log.close()
