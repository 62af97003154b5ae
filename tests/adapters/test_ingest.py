"""`coflex ingest` as a process: its doors, what it refuses and counts, who may see what, and its end."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest

from coflex.adapters.web.measurements import of_file
from coflex.domain.errors import CoflexError
from coflex.evidence import certificate as form
from coflex.evidence.checkpoint import NoteKey, parse_note, verify_note
from coflex.evidence.merkle import leaf_hash, verify_consistency, verify_inclusion
from coflex.evidence.message import Quantity
from coflex.ingest import Settings, ingest
from coflex.metering.admission import REFUSALS
from support.measuring import ORIGIN, TENANT, Device, Ingest, command, running, start, write_points

MINUTE = 60_000


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def devices() -> list[Device]:
    begin = now() // MINUTE * MINUTE - 9 * MINUTE
    return [Device(point, begin, owner=f"owner-{point % 2}") for point in range(1, 21)]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, devices: list[Device]) -> Iterator[Ingest]:
    room = tmp_path_factory.mktemp("ingest")
    points = write_points(devices[:-1], room / "points.csv")
    ended = keyed(devices[-1], "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")
    points.write_text(points.read_text().replace("unit\n", "unit,from,until,quantities,most_kw\n"))
    rows = [row if i == 0 else row + ",,,1 3 5 7,11" for i, row in enumerate(points.read_text().splitlines())]
    points.write_text("\n".join([*rows, ended]) + "\n")
    with running(points, room / "data") as process:
        yield process


def keyed(device: Device, since: str, until: str) -> str:
    return f"{device.point},{device.public.hex()},{device.owner},u,{since},{until},,"


def counted(here: Ingest, code: str) -> float:
    begins = f'coflex_ingest_refused_total{{code="{code}",tenant="{TENANT}"}}'
    rows = here.get("/metrics").decode().splitlines()
    return float(next(row for row in rows if row.startswith(begins)).split()[1])


# ---------------------------------------------------------------- good ones


@pytest.mark.spec("CERT-01")
def test_a_batch_is_certified_and_proved_over_http(here: Ingest, devices: list[Device]) -> None:
    raws = [device.next() for device in devices[:3] for _ in range(2)]
    before = parse_note(here.get("/checkpoint")).checkpoint
    told = here.post(b"".join(raws))
    assert (told["received"], told["accepted"], told["duplicates"], told["refused"], told["gaps"]) == (6, 6, 0, [], [])
    key = NoteKey.parse(here.get("/key").decode().strip())
    point = parse_note(told["checkpoint"]).checkpoint
    assert verify_note(parse_note(told["checkpoint"]), key)
    assert told["log"] == {"origin": ORIGIN, "first": before.size, "last": before.size + 5}
    for place, raw in enumerate(raws):
        query = f"/proof?point={place // 2 + 1}&sequence={place % 2 + 1}&size={point.size}"
        proof = json.loads(here.get(query))
        assert proof["leaf"] == before.size + place
        path = list(map(b64decode, proof["proof"]))
        assert verify_inclusion(leaf_hash(raw), proof["leaf"], point.size, path, point.root)
    proof = json.loads(here.get(f"/proof?from={before.size}&to={point.size}"))
    path = list(map(b64decode, proof["proof"]))
    assert verify_consistency(before.size, point.size, before.root, point.root, path)
    again = here.post(b"".join(raws))
    assert (again["accepted"], again["duplicates"], again["log"]["first"]) == (0, 6, None)
    assert again["through"] == {"1": 2, "2": 2, "3": 2}


@pytest.mark.spec("CERT-01", "CERT-02")
def test_a_certificate_from_the_door_holds_offline(here: Ingest, devices: list[Device], tmp_path: Path) -> None:
    here.post(devices[3].next())
    data = here.get("/certificate?point=4&sequence=1")
    key = NoteKey.parse(here.get("/key").decode().strip())
    assert form.verify(form.parse(data)[0], form.Trust(log=key.public)) == []
    assert form.verify(form.parse(data)[0], form.Trust(log=bytes(32))) != []


def test_late_data_is_taken_and_gaps_are_named(here: Ingest, devices: list[Device]) -> None:
    device = devices[4]
    one, two, three, four = (device.next() for _ in range(4))
    told = here.post(one + four)
    assert told["gaps"] == [{"point": 5, "from": 2, "to": 3}]
    assert here.post(two + three)["accepted"] == 2
    device.last = 5
    better = device.message(5, first=device.start, at=device.start + 5 * MINUTE, values=[7] * 15, revision=1)
    assert here.post(better)["accepted"] == 1
    live = json.loads(here.get("/v1/test/live?point=5"))
    assert [(one["value"], one["at"]) for one in live] == [(504.0, device.start + 4 * MINUTE - 4_000)]


# ---------------------------------------------------------------- bad ones


def bad_ones(devices: list[Device]) -> dict[str, list[bytes]]:
    """For each code messages that deserve it; those of one device in the order in which they are sent."""
    bad, clean = devices[5], devices[6]
    good = bad.next()
    nan = struct.unpack("<i", struct.pack("<f", float("nan")))[0]
    return {
        "": [good],
        "duplicate": [good],
        "replayed": [bad.message(1, values=[5] * 15)],
        "wrong_signature": [
            bad.message(2, secret=bytes(32)),
            bad.message(2, secret=devices[0].secret),
            bad.message(2)[:-1] + bytes([bad.message(2)[-1] ^ 1]),
            bad.message(2, signer=clean.point),
        ],
        "unknown_point": [bad.message(2, signer=4_000_000_000)],
        "not_active": [devices[-1].message(1)],
        "sequence_jump": [bad.message(2_000_000, first=bad.start, at=now())],
        "clock_off": [
            bad.message(2, at=now() + 60 * MINUTE, first=now()),
            bad.message(2, at=bad.start, first=bad.start - MINUTE),
            clean.message(1, at=now() - 60 * MINUTE, first=now() - 61 * MINUTE),
        ],
        "bad_format": [
            b"\2" + bad.message(2)[1:],
            bad.seal(b"", 2, now()),
            bad.seal(bytes(20), 3, now() + 1),
        ],
        "bad_interval": [
            bad.message(4, first=now() + 30 * MINUTE, at=now() + 2),
            bad.message(5, step=1, first=0, at=now() + 3),
        ],
        "bad_value": [
            bad.message(6, values=[nan], at=now() + 4),
            bad.message(7, values=[12], scale=3, at=now() + 5),
            bad.message(8, quantity=Quantity.VOLTAGE_V, values=[-230], at=now() + 6),
        ],
        "wrong_unit": [bad.message(9, quantity=Quantity.FREQUENCY_HZ, values=[50], at=now() + 7)],
        "overlaps": [
            bad.message(10, first=bad.start, at=now() + 8),
            bad.message(11, step=5_000, first=bad.start, at=now() + 9),
        ],
    }  # fmt: skip


@pytest.mark.spec("CERT-01")
def test_each_bad_message_is_refused_by_its_code_and_the_good_ones_beside_it_are_taken(
    here: Ingest, devices: list[Device]
) -> None:
    beside = devices[7]
    beside.every = 1_500
    for code, raws in bad_ones(devices).items():
        for raw in raws:
            before = {name: counted(here, name) for name in REFUSALS}
            told = here.post(beside.next(step=100) + raw + beside.next(step=100))
            assert told["accepted"] == 2 + (code == ""), (code, told)
            assert [one["code"] for one in told["refused"]] == [code] * (code not in ("", "duplicate"))
            assert told["duplicates"] == (code == "duplicate")
            assert all(one["place"] == 1 and one["message"] == REFUSALS[code] for one in told["refused"])
            after = {name: counted(here, name) for name in REFUSALS}
            assert {name for name in REFUSALS if after[name] != before[name]} == ({code} if code else set())
    assert counted(here, "wrong_signature") == 4


def test_what_follows_the_last_whole_message_is_one_refusal(here: Ingest, devices: list[Device]) -> None:
    beside = devices[8]
    beside.every = 1_500
    for rest in (b"x", b"\1\1\xff\xff" + bytes(200), beside.message(9)[:-1]):
        told = here.post(beside.next(step=100) + rest)
        assert (told["accepted"], [(one["place"], one["code"]) for one in told["refused"]]) == (1, [(1, "bad_format")])
    assert here.post(b"")["refused"][0]["code"] == "bad_format"


def test_requests_that_are_none_are_answered_as_problems(here: Ingest, devices: list[Device]) -> None:
    raw = devices[9].next()
    for tenant, kind, status in (("other", "", 404), ("test", "application/json", 415)):
        with pytest.raises(HTTPError) as fault:
            here.post(raw, tenant=tenant, kind=kind)
        assert fault.value.code == status
        assert json.load(fault.value)["remedy"]
    for path, status in (
        ("/proof?point=1&sequence=99", 404), ("/proof?leaf=x", 400), ("/proof?leaf=1&size=999999999", 404),
        ("/proof?from=5&to=2", 404), ("/proof", 400), ("/certificate?leaf=99999999", 404), ("/nothing", 404),
        ("/certificate?" + "leaf=0&" * 1_001, 400), ("/v1/test/live?" + "point=1&" * 1_001, 400),
        ("/proof?leaf=0&size=0", 404), ("/ready", 200), ("/healthz", 200),
    ):  # fmt: skip
        assert here.status(path) == status, path
    assert here.post(raw)["accepted"] == 1


# ---------------------------------------------------------------- who may


@pytest.mark.spec("CERT-02")
def test_senders_bring_and_see_points_of_their_own_owners(tmp_path: Path, devices: list[Device]) -> None:
    mine, other = Device(1, now() - 5 * MINUTE, "mine"), Device(2, now() - 5 * MINUTE, "other")
    points, senders = write_points([mine, other], tmp_path / "points.csv"), tmp_path / "senders.csv"
    rows = [("secret", "mine"), ("all", "*")]
    senders.write_text("".join(f"{hashlib.sha256(token.encode()).hexdigest()},{owner}\n" for token, owner in rows))
    with running(points, tmp_path / "data", senders=senders) as process:
        for token in ("", "wrong"):
            with pytest.raises(HTTPError) as fault:
                process.post(mine.message(1), token)
            assert fault.value.code == 401
        told = process.post(mine.next() + other.next(), "secret")
        assert (told["accepted"], [(one["place"], one["code"]) for one in told["refused"]]) == (1, [(1, "wrong_owner")])
        assert process.post(other.message(1), "all")["accepted"] == 1
        assert process.status("/certificate?point=1&sequence=1", "secret") == 200
        assert process.status("/certificate?point=2&sequence=1", "secret") == 404
        assert process.status("/certificate?point=2&sequence=1", "all") == 200
        assert process.status("/certificate?point=2&sequence=1") == 401
        assert process.status("/proof?point=2&sequence=1") == 200, "a proof tells nothing of what was measured"
        live = json.loads(process.get("/v1/test/live?point=1&point=2", "secret"))
        assert {one["point"] for one in live} == {1}
        assert process.stop() == 0
    with pytest.raises(CoflexError):
        of_file([["no digest", "mine"]])


# ---------------------------------------------------------------- its beginning and its end


def test_a_second_process_on_the_same_data_is_refused(tmp_path: Path, devices: list[Device]) -> None:
    points = write_points(devices, tmp_path / "points.csv")
    with running(points, tmp_path / "data") as first:
        second = subprocess.run(
            command(points, tmp_path / "data"), capture_output=True, text=True, timeout=30, check=False
        )
        assert second.returncode == 1
        assert "Another ingest writes to" in second.stderr
        size = parse_note(first.get("/checkpoint")).checkpoint.size
        assert first.stop() == 0
    third = start(points, tmp_path / "data")
    assert parse_note(third.get("/checkpoint")).checkpoint.size == size
    assert third.stop() == 0


def test_it_says_what_hinders_its_start(tmp_path: Path, devices: list[Device]) -> None:
    points, binary = write_points(devices[:1], tmp_path / "points.csv"), tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for settings in (
        Settings(tmp_path / "data", points, origin="rome"),
        Settings(tmp_path / "data", points, origin="coflex/new rome/measurements"),
        Settings(tmp_path / "data", points, origin="coflex/+/measurements"),
        Settings(tmp_path / "data", points, senders=binary),
        Settings(tmp_path / "data", points, witnesses=binary),
        Settings(tmp_path / "data", points, mqtt="http://broker"),
        Settings(tmp_path / "data", tmp_path / "none.csv"),
        Settings(tmp_path / "data", points, port=70_000),
    ):
        with pytest.raises(CoflexError) as fault:
            ingest(settings, print)
        assert fault.value.remedy
