"""A log and its witnesses, by HTTP: what is cosigned, what a certificate says of it, what a witness refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from coflex.adapters.cli import witness as door
from coflex.adapters.measurements import cosigning
from coflex.adapters.measurements.cosigning import Cosigning, Witness, read_witnesses
from coflex.domain.errors import NotFound, Refused
from coflex.evidence.certificate import Trust, cosigned, parse, verify
from coflex.evidence.checkpoint import WITNESS, NoteSigner, parse_note
from coflex.ingest import Running, open_ingest
from coflex.metering.admission import Part
from support.measuring import NOW, ORIGIN, Device, signers

FIRST, SECOND = (NoteSigner(f"witness.example/{n}", bytes([n]) * 32, WITNESS) for n in (1, 2))
PLACES = (Witness("http://first", FIRST.key), Witness("http://second", SECOND.key))


class Desks(httpx.AsyncBaseTransport):
    """Both witnesses, each with a folder; what is in `away` does not answer."""

    def __init__(self, folder: Path, running: Running) -> None:
        logs = {ORIGIN: [running.intake.log.key]}
        self.away: set[str] = set()
        self._apps = {
            name: httpx.ASGITransport(door.app(door.Desk(key, logs, door.Kept(folder / name), lambda: NOW, print)))
            for name, key in (("first", FIRST), ("second", SECOND))
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host in self.away:
            raise httpx.ConnectError("away")
        return await self._apps[request.url.host].handle_async_request(request)


def opened(folder: Path, device: Device) -> Running:
    return open_ingest(folder, ORIGIN, signers([device]), lambda: NOW + 300_000)


def bring(running: Running, device: Device, many: int) -> None:
    running.submit([Part(b"".join(device.next() for _ in range(many)))]).result()


@pytest.mark.spec("CERT-01")
def test_certificates_are_under_the_newest_checkpoint_that_all_witnesses_cosigned(tmp_path: Path) -> None:
    device, told = Device(1), []
    running = opened(tmp_path / "log", device)

    async def act() -> None:
        desks = Desks(tmp_path, running)
        asking = Cosigning(running.intake.log, PLACES, told.append)
        running.cosigning = asking
        async with httpx.AsyncClient(transport=desks) as client:
            await asking.once(client)
            assert asking.note == ""  # nothing is in the log
            bring(running, device, 3)
            desks.away = {"second"}
            for _ in range(2):
                await asking.once(client)
            assert asking.note == "" and list(asking.trouble) == [SECOND.key.name] and len(told) == 1
            bring(running, device, 4)
            desks.away = set()
            await asking.once(client)
            assert (asking.size, asking.trouble) == (7, {})
            bring(running, device, 2)
            (covered,) = parse(running.certificate([0, 6], ()))
            trust = Trust(running.intake.log.key.public, (FIRST.key, SECOND.key))
            assert verify(covered, trust) == [] and set(cosigned(covered, trust)) == {FIRST.key.name, SECOND.key.name}
            (newer,) = parse(running.certificate([0, 8], ()))
            assert {one.code for one in verify(newer, trust)} == {"too_few_witnesses"}

            # Another start goes on from what is kept, and a log that was rolled back is refused.
            again = Cosigning(running.intake.log, PLACES, told.append)
            assert again.note == asking.note
            await again.once(client)
            assert again.size == 9 and parse_note(again.note).checkpoint.root != parse_note(asking.note).checkpoint.root

    try:
        asyncio.run(act())
    finally:
        running.close()


@pytest.mark.spec("CERT-01")
def test_a_reader_whose_checkpoint_is_newer_than_the_cosigned_one_gets_the_proof_between_them(tmp_path: Path) -> None:
    device = Device(1)
    running = opened(tmp_path / "log", device)

    async def act() -> None:
        async with httpx.AsyncClient(transport=Desks(tmp_path, running)) as client:
            running.witnessed(PLACES)
            bring(running, device, 5)
            await running.cosigning.once(client)
            bring(running, device, 4)
            (given,) = parse(running.certificate([2], [0, 9]))
            assert parse_note(given.checkpoint).checkpoint.size == 5
            assert verify(given, Trust(running.intake.log.key.public, (FIRST.key,), kept=(running.note(),))) == []
            with pytest.raises(NotFound, match="ends at size 9"):
                running.certificate([2], [9, 10])

    try:
        asyncio.run(act())
    finally:
        running.close()


@pytest.mark.spec("CERT-01")
def test_where_witnesses_change_certificates_name_those_alone_that_cosigned(tmp_path: Path) -> None:
    device, third = Device(1), NoteSigner("witness.example/3", bytes([3]) * 32, WITNESS)
    running = opened(tmp_path / "log", device)

    async def act() -> None:
        async with httpx.AsyncClient(transport=Desks(tmp_path, running)) as client:
            bring(running, device, 5)
            running.witnessed(PLACES)
            await running.cosigning.once(client)

    try:
        asyncio.run(act())
        running.witnessed((PLACES[0], Witness("http://third", third.key)))
        assert running.cosigned() == "" and verify(parse(running.certificate([2], []))[0]) == []
        running.witnessed(PLACES[:1])
        (given,) = parse(running.certificate([2], []))
        assert verify(given) == [] and set(cosigned(given)) == {FIRST.key.name}
        (tmp_path / "log" / "cosigned").write_bytes(b"\xff of a damaged disk")
        running.witnessed(PLACES)
        assert running.cosigned() == ""
    finally:
        running.close()


def test_what_could_not_be_kept_is_not_told_as_cosigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(1)
    running = opened(tmp_path / "log", device)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def act() -> None:
        async with httpx.AsyncClient(transport=Desks(tmp_path, running)) as client:
            bring(running, device, 5)
            running.witnessed(PLACES)
            with monkeypatch.context() as broken:
                broken.setattr(cosigning, "put", full)
                with pytest.raises(OSError, match="No space"):
                    await running.cosigning.once(client)
                assert running.cosigned() == ""
            await running.cosigning.once(client)
            assert running.cosigning.size == 5

    try:
        asyncio.run(act())
    finally:
        running.close()


def test_witnesses_are_asked_again_after_any_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException] = []
    running = opened(tmp_path / "log", Device(1))

    async def act() -> None:
        asking, again, faults = Cosigning(running.intake.log, PLACES, told.append), asyncio.Event(), [OSError("full")]

        async def once(self: Cosigning, client: httpx.AsyncClient) -> None:
            if faults:
                raise faults.pop()
            again.set()

        monkeypatch.setattr(Cosigning, "once", once)
        task = asyncio.create_task(asking.run(0.0))
        await asyncio.wait_for(again.wait(), 10)
        task.cancel()

    try:
        asyncio.run(act())
        assert [str(one) for one in told] == ["full"]
    finally:
        running.close()


@pytest.mark.spec("CERT-01")
def test_a_log_that_forgot_is_not_cosigned_and_its_operator_is_told(tmp_path: Path) -> None:
    device, told = Device(1), []
    running = opened(tmp_path / "log", device)
    bring(running, device, 5)

    async def act() -> None:
        desks = Desks(tmp_path, running)
        async with httpx.AsyncClient(transport=desks) as client:
            await Cosigning(running.intake.log, PLACES, told.append).once(client)
            forgot = tmp_path / "forgot"
            forgot.mkdir()
            (forgot / "log.key").write_text((tmp_path / "log" / "log.key").read_text())
            (forgot / "log.key").chmod(0o600)
            young = Device(1, start=NOW + 60_000)
            other = opened(forgot, young)
            try:
                bring(other, young, 3)
                asking = Cosigning(other.intake.log, PLACES, told.append)
                await asking.once(client)
                assert asking.note == "" and len(asking.trouble) == 2
                assert all("knows this log at size 5" in str(one) for one in told)
                bring(other, young, 4)
                await asking.once(client)
                assert asking.note == "" and all("422" in one for one in asking.trouble.values())
            finally:
                other.close()

    try:
        asyncio.run(act())
    finally:
        running.close()


def test_a_table_of_witnesses_is_read_with_all_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "witnesses.txt"
    path.write_text(f"# ours\nhttps://one.example/ {FIRST.key}  # Rome\n\n")
    assert read_witnesses(path) == (Witness("https://one.example", FIRST.key),)
    log = NoteSigner(ORIGIN, bytes(32)).key
    path.write_text(f"ftp://x y\nhttps://one.example nokey\nhttps://one.example\nhttps://one.example {log}\n")
    with pytest.raises(Refused) as caught:
        read_witnesses(path)
    assert [one.place for one in caught.value.findings] == [f"witnesses.txt, line {n}" for n in (1, 2, 3, 4)]
