"""Stories of the field of the running service: what devices say and are told, and who may see it (ACT-01, ACT-02,
ACT-05, CERT-01, CERT-02)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from gmqtt import Client

from coflex import field as fields
from coflex import metered, watched
from coflex.adapters.field.setpoints import Owner, Pinned, SetPoints
from coflex.domain.activation import Piece
from coflex.evidence.certificate import Trust, parse, verify
from coflex.evidence.checkpoint import NoteKey, parse_note, verify_note
from coflex.evidence.message import (
    Acknowledgement,
    Hop,
    Kind,
    Message,
    Verdict,
    decode,
    decode_measurement,
    decode_set_point,
)
from coflex.register.activations import Regulation, SetPointEntry, SetPointState, Share
from coflex.register.devices import Device
from coflex.register.settlement import BaselineDay, MeteredDay
from coflex.service import watching
from support.field_service import FieldService, Meter, at, ms, orders
from support.mosquitto import mosquitto
from support.ordered import GLOBAL
from support.platform import TENANT, put


def run(service: FieldService, story: Callable[[FieldService], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with service.running():
            await story(service)

    asyncio.run(whole())


def entry_of(service: FieldService, unit: str) -> SetPointEntry:
    return next(one for one in service.state.all(SetPointEntry) if one.unit == unit)


@pytest.mark.spec("ACT-01", "ACT-02", "CERT-01")
def test_a_set_point_leaves_signed_is_answered_and_stands_with_the_readings_in_a_certificate(tmp_path: Path) -> None:
    async def story(service: FieldService) -> None:
        meter = await service.enrol("cu-0001", 1)
        service.to(-6)
        assert entry_of(service, "cu-0001").state is SetPointState.WAITING
        told = await service.bring(meter.measured(at(-8), [3_000] * 15))
        assert (told["received"], told["accepted"], told["through"], told["open"]) == (1, 1, {"1": 1}, {})
        assert told["at"] == ms(at(-6)) and told["set_points"] == {}
        await service.turn()
        sent = entry_of(service, "cu-0001")
        assert sent.state is SetPointState.SENT and sent.sequences == (1, 2, 3, 4)

        came = orders(await service.bring(meter.measured(at(-7), [3_000] * 15)), 1)
        platform = (await service.ask("GET", "/field")).json()
        for one in came:  # by another library than the one that signed
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(platform["key"])).verify(one.signature, one.signed)
        bodies = [decode_set_point(one.body) for one in came]
        assert [(one.point, one.change_w, one.starts) for one in bodies] == [
            (1, 100_000, ms(at(15 * quarter))) for quarter in range(4)
        ]
        # Nothing was foreseen here, so the power is around what flowed last.
        assert {one.power_w for one in bodies} == {103_000}

        kept = (await service.ask("GET", "/measurements/checkpoint", None)).text
        answered = await service.bring(meter.answer(came[0], service.now, Hop.LIGHT_NODE))
        assert answered["accepted"] == 1
        await service.turn()
        # Of four messages one is answered: the device may not have the others, and is told them again.
        assert entry_of(service, "cu-0001").acknowledgements == ()
        service.to(-4)
        assert orders(await service.bring(meter.measured(at(-6), [3_000] * 15)), 1) == came[1:]
        await service.bring(*(meter.answer(one, service.now, Hop.LIGHT_NODE) for one in came[1:]))
        await service.turn()
        (mark,) = entry_of(service, "cu-0001").acknowledgements
        assert (mark.hop, mark.verdict) == ("light_node", "taken")
        assert orders(await service.bring(meter.measured(at(-4), [3_000] * 15)), 1) == []

        span = f"from={at(-10).isoformat()}&to={at(60).isoformat()}".replace("+", "%2B")
        made = await service.ask("GET", f"/units/cu-0001/certificate?{span}")
        assert made.status_code == 200, made.text
        (certificate,) = parse(made.content)
        key = NoteKey.parse((await service.ask("GET", "/measurements/key", None)).text.strip())
        assert verify(certificate, Trust(key.public)) == []
        older = f"older={parse_note(kept).checkpoint.size}"
        made = await service.ask("GET", f"/units/cu-0001/certificate?{span}&{older}")
        assert verify(parse(made.content)[0], Trust(key.public, kept=(kept,))) == []
        kinds = [decode(record.message).kind for record in certificate.records]
        assert sorted(kinds) == [Kind.MEASUREMENT] * 4 + [Kind.SET_POINT] * 4 + [Kind.ACKNOWLEDGEMENT] * 4

        checkpoint = (await service.ask("GET", "/measurements/checkpoint", None)).text
        assert verify_note(parse_note(checkpoint), key) and parse_note(checkpoint).checkpoint.size == 13
        proof = await service.ask("GET", "/measurements/proof?from=4&to=13", None)
        assert proof.status_code == 200 and proof.json()["proof"]

    run(FieldService(tmp_path), story)


@pytest.mark.spec("CERT-02")
def test_live_values_and_certificates_are_for_whom_the_owner_lets_see_them(tmp_path: Path) -> None:
    async def story(service: FieldService) -> None:
        meter = await service.enrol("cu-0001", 1)
        service.to(-6)
        await service.bring(meter.measured(at(-7), [-2_000, *[None] * 13, -1_500]))
        live = (await service.ask("GET", "/units/cu-0001/live")).json()["items"]
        assert [(one["quantity"], one["value"], one["at"]) for one in live] == [
            (1, -1500.0, at(-7 + 56 / 60).isoformat().replace("+00:00", "Z"))
        ]
        span = f"from={at(-10).isoformat()}&to={at(0).isoformat()}".replace("+", "%2B")
        places = ("/units/cu-0001/live", f"/units/cu-0001/certificate?{span}")

        async def seen(party: str) -> list[int]:
            return [(await service.ask("GET", place, party)).status_code for place in places]

        assert [await seen(party) for party in ("owner", "sp-1")] == [[200, 200]] * 2
        assert [await seen(party) for party in ("sp-2", "dso", "tso", "mo")] == [[404, 404]] * 4
        given = await service.ask(
            "POST", "/data-grants", unit="cu-0001", party="dso", scope=["live"], starts=at(-60).isoformat(),
            ends=at(600).isoformat(),
        )  # fmt: skip
        assert given.status_code == 201, given.text
        assert await seen("dso") == [200, 404]
        # Who may see from now on does not see what was measured before.
        given = await service.ask(
            "POST", "/data-grants", unit="cu-0001", party="tso", scope=["live"], starts=at(-6).isoformat(),
            ends=at(600).isoformat(),
        )  # fmt: skip
        assert given.status_code == 201, given.text
        assert (await service.ask("GET", "/units/cu-0001/live", "tso")).json() == {"items": []}
        service.to(-4)
        await service.bring(meter.measured(at(-6), [-1_000] * 15))
        live = (await service.ask("GET", "/units/cu-0001/live", "tso")).json()["items"]
        assert [one["value"] for one in live] == [-1000.0]
        # Nor in certificates, though it was signed since.
        given = await service.ask(
            "POST", "/data-grants", unit="cu-0001", party="tso", scope=["certified"], starts=at(-4).isoformat(),
            ends=at(600).isoformat(),
        )  # fmt: skip
        assert given.status_code == 201, given.text
        meter.last += 1
        before = meter.message(meter.last, first=ms(at(-5)), step=4_000, values=[-3_000] * 15, at=ms(at(-4)))
        assert (await service.bring(before))["accepted"] == 1
        span = f"from={at(-4).isoformat()}&to={at(600).isoformat()}".replace("+", "%2B")
        assert (await service.ask("GET", f"/units/cu-0001/certificate?{span}", "tso")).status_code == 404
        service.to(-2)
        await service.bring(meter.measured(at(-4), [-4_000] * 15))
        made = await service.ask("GET", f"/units/cu-0001/certificate?{span}", "tso")
        (record,) = parse(made.content)[0].records
        assert decode_measurement(decode(record.message).body).first == ms(at(-4))
        unknown = await service.ask("GET", "/units/cu-9999/live", "dso")
        hidden = await service.ask("GET", "/units/cu-0001/live", "sp-2")
        assert unknown.json()["detail"].replace("cu-9999", "cu-0001") == hidden.json()["detail"]

    run(FieldService(tmp_path), story)


@pytest.mark.spec("ACT-02", "CERT-02")
def test_messages_are_brought_by_the_owner_or_the_provider_and_by_nobody_else(tmp_path: Path) -> None:
    async def story(service: FieldService) -> None:
        first, second = await service.enrol("cu-0001", 1), await service.enrol("cu-0002", 2)
        assert (await service.bring(first.measured(at(-120), [1] * 15), party="sp-1"))["accepted"] == 1
        for party in ("dso", "tso", "mo"):
            assert (await service.ask("POST", "/measurements", party, messages=[])).status_code == 403
        assert (await service.ask("POST", "/measurements", None, messages=[])).status_code == 401
        # A key that is trusted no more signs nothing more; a message under another's number is of no key.
        forged = second.message(1, signer=1, first=ms(at(-119)))
        told = await service.bring(forged, second.measured(at(-120), [1] * 15))
        assert [one["code"] for one in told["refused"]] == ["wrong_signature"] and told["accepted"] == 1
        device = next(one for one in (await service.ask("GET", "/devices")).json()["items"] if one["point"] == 2)
        service.to(-110)
        revoked = await service.ask("POST", f"/devices/{device['id']}/revoke", reason="stolen")
        assert revoked.status_code == 200
        service.to(-100)
        told = await service.bring(second.measured(at(-101), [1] * 15), first.measured(at(-101), [1] * 15))
        assert [one["code"] for one in told["refused"]] == ["not_active"] and told["accepted"] == 1
        # Its old messages still count as its own.
        span = f"from={at(-130).isoformat()}&to={at(-90).isoformat()}".replace("+", "%2B")
        old = await service.ask("GET", f"/units/cu-0002/certificate?{span}")
        assert old.status_code == 200 and verify(parse(old.content)[0]) == []

    run(FieldService(tmp_path), story)


@pytest.mark.spec("ACT-01")
def test_what_a_device_answered_before_a_stop_is_told_after_it_and_numbers_go_on(tmp_path: Path) -> None:
    service = FieldService(tmp_path)

    async def before(service: FieldService) -> None:
        meter = await service.enrol("cu-0001", 1)
        service.to(-6)
        await service.turn()
        came = orders(await service.bring(meter.measured(at(-7), [1] * 15)), 1)
        await service.bring(meter.answer(came[0], service.now, Hop.LIGHT_NODE, Verdict.REFUSED))
        assert entry_of(service, "cu-0001").acknowledgements == ()

    async def after(service: FieldService) -> None:
        await service.turn()
        (mark,) = entry_of(service, "cu-0001").acknowledgements
        assert (mark.hop, mark.verdict) == ("light_node", "refused")
        await service.enrol("cu-0003", 2)
        await service.turn()
        assert entry_of(service, "cu-0003").sequences == (6, 7, 8, 9)

    run(service, before)
    run(service, after)


@pytest.mark.spec("ACT-01", "ACT-05")
def test_set_points_shares_and_the_regulation_signal_go_out_by_the_broker(tmp_path: Path) -> None:
    async def story(service: FieldService, port: int) -> None:
        heard: list[tuple[str, Message]] = []
        listener = Client("listener", clean_session=True)
        listener.on_connect = lambda client, *_: client.subscribe(f"coflex/{TENANT}/#", qos=1)
        listener.on_message = lambda _, topic, payload, *__: heard.append(
            (topic.removeprefix(f"coflex/{TENANT}/"), decode(bytes(payload)))
        )
        await listener.connect("127.0.0.1", port)
        await service.enrol("cu-0001", 1)
        service.to(-6)
        field = await service.fields.of(TENANT)
        await until(lambda: field.door is not None and field.door.connected)
        await service.turn()
        await until(lambda: len(heard) == 4)
        assert {topic for topic, _ in heard} == {"s/1"} and entry_of(service, "cu-0001").state is SetPointState.SENT

        heard.clear()
        shares = (Share("cu-0001", 40, 30, 1), Share("cu-0003", 60, 70, 1))
        regulation = Regulation(
            "r-1", "tso", "sp-1", "global_energy", GLOBAL, (), "sp-1-global", at(-10), at(60), 100, 100, 300, shares,
            ("dso",),
        )  # fmt: skip
        service.sequencer.submit(put([regulation]))
        await service.turn()
        await until(lambda: len(heard) == 2)
        told = [decode_set_point(one.body) for _, one in heard]
        assert [(one.change_w, one.continuous, one.ends) for one in told] == [
            (40_000, True, ms(at(0))), (-30_000, True, ms(at(0))),
        ]  # fmt: skip
        await service.turn()  # nothing new, nothing sent
        assert len(heard) == 2
        # Half of each by factors 1 and 1, as far as cu-0003 can; none of it by a factor of 0.
        for factors, wanted in (((1, 1), [(50_000, True), (-50_000, False)]), ((0, 1), [(0, True)])):
            both = tuple(replace(one, up_kw=90, down_kw=90, factor=f) for one, f in zip(shares, factors, strict=True))
            service.sequencer.submit(put([replace(regulation, shares=both)]))
            heard.clear()
            await service.turn()
            await until(lambda: len(heard) == len(wanted))  # noqa: B023
            told = [decode_set_point(one.body) for _, one in heard]
            assert [(one.change_w, one.stops) for one in told] == wanted
        heard.clear()
        service.sequencer.submit(put([replace(regulation, shares=(shares[0], replace(shares[1], down_kw=100)))]))
        await service.turn()
        await until(lambda: len(heard) == 2)
        heard.clear()
        one_way = replace(shares[0], down_kw=0), replace(shares[1], down_kw=100)
        service.sequencer.submit(put([replace(regulation, shares=one_way)]))
        await service.turn()
        await until(lambda: len(heard) == 2)
        told = [decode_set_point(one.body) for _, one in heard]
        assert [(one.change_w, one.stops) for one in told] == [(0, True), (40_000, False)]  # nothing downwards
        answer = await service.ask("POST", "/regulations/r-1/signal", "tso", kw=-250)
        assert answer.status_code == 200 and answer.json()["kw"] == -100
        await until(lambda: len(heard) == 3)
        topic, raw = heard[2]
        signal = decode_set_point(raw.body)
        assert topic == f"r/{answer.json()['group']}" == f"r/{signal.point}"
        assert (signal.change_w, signal.power_w, signal.ends - signal.starts) == (-100_000, 100_000, 12_000)
        for party, status in (("sp-1", 403), ("sp-2", 404), ("dso", 403)):
            assert (await service.ask("POST", "/regulations/r-1/signal", party, kw=1)).status_code == status
        wrong = await service.ask("POST", "/regulations/r-1/signal", "tso", kw=1e9, seconds=0)
        assert {one["place"] for one in json.loads(wrong.content)["findings"]} == {"kw", "seconds"}
        await listener.disconnect()

    with mosquitto(tmp_path / "broker") as broker:
        service = FieldService(tmp_path, f"mqtt://127.0.0.1:{broker.port}")

        async def whole(service: FieldService) -> None:
            await story(service, broker.port)

        run(service, whole)


@pytest.mark.spec("CERT-01", "ACT-05")
def test_a_broker_that_is_away_holds_up_nothing_but_what_goes_by_it(tmp_path: Path) -> None:
    async def story(service: FieldService) -> None:
        meter, other = await service.enrol("cu-0001", 1), await service.enrol("cu-0002", 2)
        service.to(-6)
        shares = (Share("cu-0001", 100, 100, 1),)
        regulation = Regulation(
            "r-1", "tso", "sp-1", "global_energy", GLOBAL, (), "sp-1-global", at(-10), at(60), 100, 100, 300, shares,
            ("dso",),
        )  # fmt: skip
        service.sequencer.submit(put([regulation]))
        sizes = []
        for _ in range(3):
            with pytest.raises(ConnectionError):
                await service.turn()
            sizes.append((await service.fields.of(TENANT)).running.size())
        assert sizes == [5] * 3  # four pieces of a set point and the result, each signed once
        assert (await service.ask("GET", f"/sessions/{GLOBAL}/certificate", "sp-1")).status_code == 200
        assert entry_of(service, "cu-0001").state is SetPointState.WAITING
        field = await service.fields.of(TENANT)
        assert field._looked > 0  # settlement is brought what it lacks
        # Who asks by HTTP is told all the same.
        assert len(orders(await service.bring(meter.measured(at(-7), [1] * 15)), 1)) == 4
        assert (await service.bring(other.measured(at(-7), [1] * 15)))["set_points"] == {}
        service.do("activation.stop", "tso", service.order.id)
        with pytest.raises(ConnectionError):
            await service.turn()
        (end,) = orders(await service.bring(meter.measured(at(-6), [1] * 15)), 1)
        assert decode_set_point(end.body).stops

    async def idle(service: FieldService) -> None:
        await service.enrol("cu-0001", 1)
        await service.turn()  # nothing is to be told, and nothing is wrong

    run(FieldService(tmp_path / "1", "mqtt://127.0.0.1:1"), story)
    run(FieldService(tmp_path / "2", "mqtt://127.0.0.1:1"), idle)


@pytest.mark.spec("CERT-01")
def test_a_published_result_stands_signed_in_the_log_and_each_party_finds_its_awards_in_it(tmp_path: Path) -> None:
    async def story(service: FieldService) -> None:
        assert (await service.ask("GET", f"/sessions/{GLOBAL}/certificate", "sp-1")).status_code == 404
        await service.enrol("cu-0001", 1)
        await service.turn()
        for _ in range(2):  # a second look finds nothing new
            await service.turn()
            size = (await service.fields.of(TENANT)).running.size()
            assert size == 1
        for party in ("sp-1", "tso"):
            told = await service.ask("GET", f"/sessions/{GLOBAL}/certificate", party)
            (certificate,) = parse(told.content)
            assert verify(certificate) == []
            (record,) = certificate.records
            said = json.loads(decode(record.message).body)
            assert (said["kind"], said["session"], said["tenant"]) == ("market outcome", GLOBAL, TENANT)
            awards = (await service.ask("GET", f"/sessions/{GLOBAL}/awards", party)).json()["items"]
            lines = sorted(json.dumps(one, sort_keys=True, separators=(",", ":")) for one in awards)
            digest = sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
            assert said["awards"][party] == {"count": 4, "sha256": digest}
        assert "sp-2" not in said["awards"]  # it sold nothing

    async def again(service: FieldService) -> None:
        await service.turn()
        assert (await service.fields.of(TENANT)).running.size() == 1
        assert (await service.ask("GET", f"/sessions/{GLOBAL}/certificate", "sp-2")).status_code == 200

    service = FieldService(tmp_path)
    run(service, story)
    run(service, again)


@pytest.mark.spec("SET-01", "CERT-01")
def test_what_was_metered_and_the_baseline_of_a_called_unit_come_to_settlement_with_their_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every quarter-hour of two weeks -0.5 kWh; in the hour that was sold 1, 2, 3 and then nothing that is known."""
    days, quarter = 14, timedelta(minutes=15)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def story(service: FieldService) -> None:
        meter = await service.enrol("cu-0001", 1)
        for minutes in (-6, 61):
            service.to(minutes)
        first = at(0) - timedelta(days=days)
        meter.last += 1
        past = meter.message(
            meter.last, first=ms(first), at=ms(at(-60)), step=900_000, values=[-500] * (96 * days - 4), quantity=5
        )
        meter.last += 1
        event = meter.message(
            meter.last, first=ms(at(0)), at=ms(at(61)), step=900_000, values=[1_000, 2_000, 3_000], quantity=5
        )
        told = await service.bring(past, event)
        assert told["accepted"] == 2, told
        await service.turn()
        assert service.state.all(MeteredDay) == ()  # the day is not over
        service.to(25 * 60)
        field = await service.fields.of(TENANT)
        assert await field.bringer.turn() == 2  # cu-0003 was called too, and has no device
        there = {one.unit: one for one in service.state.all(MeteredDay)}
        mine = there["cu-0001"].quantities
        assert [(one.start, one.kwh, one.quality) for one in mine] == [
            (at(0), Decimal(1), "measured"),
            (at(0) + quarter, Decimal(2), "measured"),
            (at(0) + 2 * quarter, Decimal(3), "measured"),
            (at(0) + 3 * quarter, None, "missing"),
        ]
        assert {(one.leaf, one.log_size) for one in mine[:3]} == {(1, field.running.size())}
        assert {one.quality for one in there["cu-0003"].quantities} == {"missing"}
        (base,) = [one for one in service.state.all(BaselineDay) if one.unit == "cu-0001"]
        assert set(base.kwh) == {Decimal("-0.5")} and len(base.kwh) == 96
        kept = field.running.intake.log.folder / "baselines" / f"{base.record}.json"
        assert sha256(kept.read_bytes()).hexdigest() == base.record
        assert json.loads(kept.read_bytes())["values_kw"] == [-2.0] * 96

        # What comes late is found when it is looked for again, and what is there already is brought no more.
        service.to(26 * 60)
        meter.last += 1
        late = meter.message(meter.last, first=ms(at(45)), at=ms(at(26 * 60)), step=900_000, values=[4_000], quantity=5)
        assert (await service.bring(late))["accepted"] == 1
        assert await field.bringer.turn() == 0
        field.bringer.look_again()
        assert await field.bringer.turn() == 2
        mine = next(one for one in service.state.all(MeteredDay) if one.unit == "cu-0001").quantities
        assert [one.kwh for one in mine] == [1, 2, 3, 4] and [one.version for one in mine] == [1, 1, 1, 2]
        field.bringer.look_again()
        assert await field.bringer.turn() == 1  # cu-0003 alone

        # A correction of the hour, and one of the days before it, on which the baseline rests.
        meter.last += 1
        other = meter.message(
            meter.last, first=ms(at(0)), at=ms(service.now) + 1, step=900_000, values=[1_500], quantity=5, revision=1
        )
        meter.last += 1
        weeks = [-700] * (96 * days - 4)
        before = meter.message(
            meter.last, first=ms(first), at=ms(service.now) + 2, step=900_000, values=weeks, quantity=5, revision=1
        )
        assert (await service.bring(other, before))["accepted"] == 2
        with monkeypatch.context() as disk:
            disk.setattr(metered, "put", full)
            disk.setattr(metered, "AGAIN_S", 0.0)
            await service.turn()
            await field.bringer.turn()
        # What a full disk kept from being brought is brought when it is looked for again.
        await field.bringer.turn()
        mine = next(one for one in service.state.all(MeteredDay) if one.unit == "cu-0001").quantities
        assert [one.kwh for one in mine] == [Decimal("1.5"), 2, 3, 4] and mine[0].version == 2
        (base,) = [one for one in service.state.all(BaselineDay) if one.unit == "cu-0001"]
        assert set(base.kwh) == {Decimal("-0.7")} and base.version == 2

    async def after(service: FieldService) -> None:
        entries = service.sequencer.number
        field = await service.fields.of(TENANT)
        await service.turn()
        await field.bringer.turn()
        new = [one.command.verb for one in service.journal.entries(entries, 100)]
        assert "metered.bring" not in new  # looked at again from the log, and nothing was another

    service = FieldService(tmp_path)
    run(service, story)
    run(service, after)


async def until(true: Callable[[], Any]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


@pytest.mark.spec("ACT-03")
def test_a_unit_that_does_otherwise_than_it_was_told_is_noticed_and_so_is_its_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 kW from 0 to 60, fully from 15 on, 10 % of tolerance: 50 kW for a minute is short, 120 kW over, and three
    quarter-hours without a word are silence. Who may not read the meter is told of the alarm and not by how much."""
    monkeypatch.setattr(watched, "LOOK_S", 0.0)
    monkeypatch.setattr(watched, "SILENT_REAL_S", 0.0)

    async def measured(service: FieldService, meter: Meter, minute: float, kw: float) -> SetPointEntry:
        """The minute before `minute`, at a power beside the 3 kW that flowed; what is known of the set point then."""
        service.to(minute)
        await service.bring(meter.measured(at(minute - 1), [3_000 + round(1_000 * kw)] * 15))
        await service.turn()
        return entry_of(service, "cu-0001")

    async def told(service: FieldService, party: str) -> list[str]:
        return [one["alarm"] for one in service.notes(party, "set_point.alarm")]

    async def story(service: FieldService) -> None:
        meter = await service.enrol("cu-0001", 1)
        assert (await measured(service, meter, -6, 0)).alarm == "none"
        for minute in (-5, 2, 13, 14):  # nothing yet, and then on its way
            assert (await measured(service, meter, minute, 0)).alarm == "none"
        assert (await measured(service, meter, 17, 50)).alarm == "none"  # for how long, nobody knows yet
        short = await measured(service, meter, 18, 50)
        assert (short.alarm, short.deviation_kw) == ("short", Decimal(-50))
        assert short.alarm_since == at(16) + timedelta(seconds=56)
        assert (await measured(service, meter, 19, 50)).alarm == "short"
        everybody = {short.owner, short.provider, short.buyer, *short.operators}
        assert everybody >= {"owner", "sp-1", "tso", "dso"}
        for party in everybody:
            assert await told(service, party) == ["short"]
        assert await told(service, "sp-2") == []

        shown = {}
        for party in ("owner", "sp-1", "tso", "dso"):
            one = (await service.ask("GET", f"/set-points/{short.id}", party)).json()
            assert one["alarm"] == "short"
            shown[party] = one.get("deviation_kw")
        assert shown == {"owner": "-50.000", "sp-1": "-50.000", "tso": None, "dso": None}

        assert (await measured(service, meter, 20, 94)).alarm == "short"  # it leaves an alarm at half its bound
        assert (await measured(service, meter, 21, 96)).alarm == "short"
        ended = await measured(service, meter, 22, 96)
        assert (ended.alarm, ended.alarm_since, ended.deviation_kw) == ("none", None, None)
        await measured(service, meter, 23, 120)
        over = await measured(service, meter, 24, 120)
        assert (over.alarm, over.deviation_kw) == ("over", Decimal(20))

    async def again(service: FieldService) -> None:
        """After a restart nothing is known of the last values; the alarm stands until something is."""
        meter = Meter(1, last=14)
        service.to(25)
        await service.turn()
        assert entry_of(service, "cu-0001").alarm == "over"
        await measured(service, meter, 26, 101)
        assert (await measured(service, meter, 27, 101)).alarm == "none"
        service.to(40)
        await service.turn()
        assert entry_of(service, "cu-0001").alarm == "none"
        monkeypatch.setattr(watching, "SILENT_S", 600.0)
        monkeypatch.setattr(watching, "INTERVALS", 0.0)
        await service.turn()
        silent = entry_of(service, "cu-0001")
        assert (silent.alarm, silent.deviation_kw) == ("silent", None)
        service.to(61)  # over: of nothing that is past an alarm can hold
        await service.turn()
        assert entry_of(service, "cu-0001").alarm == "none"
        assert await told(service, "sp-1") == ["short", "none", "over", "none", "silent", "none"]

    service = FieldService(tmp_path)
    run(service, story)
    run(service, again)


def holds(device: SetPoints, raws: list[Message], minute: float) -> int | None:
    """What a device that takes these messages at a minute has to give beside its plan from then on, W."""
    for one in raws:
        device.judge(one.encode(), ms(at(minute)))
    found = device.in_force(ms(at(minute)))
    return None if found is None else found[1].change_w


async def light_node(service: FieldService, point: int) -> SetPoints:
    platform = (await service.ask("GET", "/field")).json()
    return SetPoints(point, Pinned(platform["signer"], bytes.fromhex(platform["key"])), Owner(-1e9, 1e9), {})


@pytest.mark.spec("ACT-03", "ACT-04")
def test_what_is_stopped_or_limited_from_now_on_ends_now_also_where_devices_ask_by_http(tmp_path: Path) -> None:
    """Limited to nothing from 5 to 30, and stopped at 40: nothing holds from then on, however late the device asks."""

    async def story(service: FieldService) -> None:
        meter = await service.enrol("cu-0001", 1)
        device = await light_node(service, 1)

        async def asks(minute: float, answers: bool = True) -> int | None:
            service.to(minute)
            await service.turn()
            came = orders(await service.bring(meter.measured(at(minute - 1), [3_000] * 15)), 1)
            if answers and came:
                await service.bring(*(meter.answer(one, service.now, Hop.LIGHT_NODE) for one in came))
                await service.turn()
            return holds(device, came, minute)

        assert await asks(-6) is None
        assert await asks(1) == 100_000
        order = entry_of(service, "cu-0001").order
        service.to(5)
        why = {"element": "line-1", "value": 105.0, "bound": 100.0}
        service.do("activation.limit", "dso", order, unit="cu-0001", to_kw=0, ends=at(30), **why)
        assert await asks(6) is None
        assert await asks(29) is None
        assert await asks(31) == 100_000
        service.do("activation.stop", "tso", order)
        # The device was away for a while; what it holds was to last until 60.
        assert await asks(45) is None
        assert await asks(59) is None
        service.to(61)
        await service.turn()
        assert orders(await service.bring(meter.measured(at(60), [3_000] * 15)), 1) == []

    run(FieldService(tmp_path), story)


@pytest.mark.spec("ACT-01", "ACT-04")
def test_orders_that_share_a_unit_are_held_together_and_each_by_itself_when_the_other_ends(tmp_path: Path) -> None:
    """cu-0001 flows 3 kW and gives 60 kW for one order, and 40 kW more for another from 20 to 40."""

    async def story(service: FieldService) -> None:
        meter = await service.enrol("cu-0001", 1)
        device = await light_node(service, 1)

        async def power(minute: float, *, flows: int = 3_000) -> int:
            """What the device holds once it was told all there is, W."""
            service.to(minute)
            await service.turn()
            came = orders(await service.bring(meter.measured(at(minute - 1), [flows] * 15)), 1)
            holds(device, came, minute)
            found = device.in_force(ms(at(minute)))
            return 0 if found is None else found[1].power_w

        service.to(-10)
        await service.bring(meter.measured(at(-12), [3_000] * 15))
        assert [await power(-6), await power(1)] == [0, 103_000]
        order = entry_of(service, "cu-0001").order
        service.do("activation.change", "tso", order, quantity_kw=60)
        assert await power(5, flows=103_000) == 63_000  # around what flowed before anything was asked
        form = {"session": GLOBAL, "offer": "sp-1/g", "direction": "up", "starts": at(20), "ends": at(40)}
        second = service.do("activation.order", "tso", quantity_kw=90, **form)["id"]
        shares = {"cu-0001": 40, "cu-0003": 50}
        split = [
            {"unit": unit, "pieces": [{"starts": at(20), "ends": at(40), "kw": kw}]} for unit, kw in shares.items()
        ]
        service.do("activation.split", "sp-1", second, units=split)
        assert [await power(minute, flows=63_000) for minute in (6, 19, 21)] == [63_000, 63_000, 103_000]
        told = {one.order: one.profile[-1].kw for one in service.state.all(SetPointEntry) if one.unit == "cu-0001"}
        assert told == {order: 60, second: 40}
        service.do("activation.change", "tso", order, quantity_kw=50)
        assert await power(25, flows=103_000) == 93_000
        service.do("activation.stop", "tso", order)
        assert await power(30, flows=93_000) == 43_000
        service.do("activation.stop", "tso", second)
        assert await power(31, flows=43_000) == 0

    run(FieldService(tmp_path), story)


@pytest.mark.spec("ACT-01", "CERT-01")
def test_no_word_of_a_device_speaks_for_another_or_stops_the_field(tmp_path: Path) -> None:
    async def story(service: FieldService) -> None:
        first, second = await service.enrol("cu-0001", 1), await service.enrol("cu-0002", 2)
        service.to(-6)
        await service.turn()
        sent = entry_of(service, "cu-0001").sequences
        for sequence in (0, *sent, 1 << 63, (1 << 64) - 1):
            second.last += 1
            body = Acknowledgement(sequence, Hop.LIGHT_NODE, Verdict.TAKEN).encode()
            await service.bring(second.seal(body, second.last, ms(service.now), kind=Kind.ACKNOWLEDGEMENT))
        await service.turn()
        assert entry_of(service, "cu-0001").acknowledgements == ()
        came = orders(await service.bring(first.measured(at(-7), [1] * 15)), 1)
        assert tuple(one.sequence for one in came) == sent
        await service.bring(*(first.answer(one, service.now, Hop.LIGHT_NODE) for one in came))
        await service.turn()
        (mark,) = entry_of(service, "cu-0001").acknowledgements
        assert mark.by == "cu-0001"

    run(FieldService(tmp_path), story)


@pytest.mark.spec("CERT-02")
def test_who_brings_a_copy_of_the_message_of_another_ones_unit_is_not_given_its_set_points(tmp_path: Path) -> None:
    """sp-2 has units of the same owner, so it may bring its messages, and cu-0001 is sp-1's."""

    async def story(service: FieldService) -> None:
        meter = await service.enrol("cu-0001", 1)
        service.to(-6)
        await service.turn()
        raw = meter.measured(at(-7), [1] * 15)
        assert orders(await service.bring(raw, party="sp-2"), 1) == []
        assert len(orders(await service.bring(raw, party="sp-1"), 1)) == 4
        assert len(orders(await service.bring(raw, party="owner"), 1)) == 4

    run(FieldService(tmp_path), story)


@pytest.mark.spec("ACT-02", "ACT-06")
def test_a_device_that_takes_the_place_of_another_is_told_what_its_unit_was_told(tmp_path: Path) -> None:
    async def story(service: FieldService) -> None:
        old = await service.enrol("cu-0001", 1)
        service.to(1)
        await service.turn()
        came = orders(await service.bring(old.measured(at(0), [1] * 15)), 1)
        await service.bring(*(old.answer(one, service.now, Hop.LIGHT_NODE) for one in came))
        await service.turn()
        device = next(one for one in (await service.ask("GET", "/devices")).json()["items"] if one["point"] == 1)
        assert (await service.ask("POST", f"/devices/{device['id']}/revoke", reason="broken")).status_code == 200
        service.to(20)
        new = await service.enrol("cu-0001", 2)
        await service.turn()
        told = entry_of(service, "cu-0001")
        assert (told.version, told.acknowledgements) == (2, ())
        came = orders(await service.bring(new.measured(at(19), [1] * 15)), 2)
        assert {decode_set_point(one.body).point for one in came} == {2}
        assert holds(await light_node(service, 2), came, 20) == 100_000

    run(FieldService(tmp_path), story)


@pytest.mark.spec("ACT-02", "CERT-02")
def test_a_device_ends_with_its_unit_and_is_not_trusted_again_after_a_restart(tmp_path: Path) -> None:
    service = FieldService(tmp_path)
    raws: list[bytes] = []

    async def before(service: FieldService) -> None:
        meter = await service.enrol("cu-0001", 1)
        service.to(-100)
        service.do("unit.terminate", "sp-1", "cu-0001")
        assert [one.reason for one in service.state.all(Device)] == ["The unit is terminated."]
        service.to(-80)
        raws.append(meter.measured(at(-82), [1] * 15))
        assert (await service.bring(*raws))["accepted"] == 0

    async def after(service: FieldService) -> None:
        service.to(-60)
        told = await service.bring(*raws)
        assert [one["code"] for one in told["refused"]] == ["not_active"]

    run(service, before)
    run(service, after)


@pytest.mark.spec("ACT-01")
def test_a_device_that_first_connects_after_its_set_points_had_left_is_told_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "REPEAT_S", 0.0)

    async def story(service: FieldService, port: int) -> None:
        service.to(-6)
        meter = await service.enrol("cu-0001", 1)
        door = (await service.fields.of(TENANT)).door
        assert door is not None
        await until(lambda: door.connected)
        await service.turn()
        assert entry_of(service, "cu-0001").state is SetPointState.SENT
        heard: list[int] = []
        device = Client("coflex-demo-1", clean_session=False, session_expiry_interval=600)
        device.on_connect = lambda client, *_: client.subscribe(f"coflex/{TENANT}/s/1", qos=1)
        device.on_message = lambda _, __, payload, *___: heard.append(decode(bytes(payload)).sequence) or 0
        await device.connect("127.0.0.1", port)
        await service.turn()
        assert heard == []  # it has not said a word yet
        device.publish(f"coflex/{TENANT}/m/1", meter.measured(at(-7), [3_000] * 15), qos=1)
        log = (await service.fields.of(TENANT)).running
        await until(lambda: log.intake.standing(1)[0] == 1)
        await service.turn()
        await until(lambda: len(heard) == 4)
        assert tuple(heard) == entry_of(service, "cu-0001").sequences
        for _ in range(3):  # and not again before it speaks again
            await service.turn()
        await asyncio.sleep(0.2)
        assert len(heard) == 4
        await device.disconnect()

    with mosquitto(tmp_path / "broker") as broker:
        service = FieldService(tmp_path, f"mqtt://127.0.0.1:{broker.port}")
        run(service, lambda one: story(one, broker.port))


def test_a_set_point_that_fits_into_no_message_keeps_no_other_one_back(tmp_path: Path) -> None:
    async def story(service: FieldService) -> None:
        for point, unit in enumerate(("cu-0001", "cu-0003"), start=1):
            await service.enrol(unit, point)
        service.to(-6)
        far = entry_of(service, "cu-0001")
        service.sequencer.submit(put([replace(far, profile=tuple(replace(one, kw=3_000_000) for one in far.profile))]))
        for _ in range(3):
            await service.turn()
        assert entry_of(service, "cu-0003").state is SetPointState.SENT
        assert entry_of(service, "cu-0001").state is SetPointState.WAITING
        assert [event for event, _ in service.said.lines] == ["fault"]

    run(FieldService(tmp_path), story)


@pytest.mark.spec("ACT-01")
@pytest.mark.parametrize(("pieces", "leaves"), [(1_000, True), (2_500, False)])
def test_a_set_point_of_very_many_pieces_keeps_no_other_one_back(tmp_path: Path, pieces: int, leaves: bool) -> None:
    """As many as a provider's split may have leave, with a stop before them, as it replaces what was told before."""

    async def story(service: FieldService) -> None:
        for point, unit in enumerate(("cu-0001", "cu-0003"), start=1):
            await service.enrol(unit, point)
        service.to(-6)
        far, second = entry_of(service, "cu-0001"), timedelta(seconds=1)
        many = tuple(Piece(at(0) + k * second, at(0) + (k + 1) * second, 99 + k % 2) for k in range(pieces))
        service.sequencer.submit(put([replace(far, profile=many, version=2)]))
        await service.turn()
        assert entry_of(service, "cu-0003").state is SetPointState.SENT
        told = entry_of(service, "cu-0001")
        assert (told.state is SetPointState.SENT, len(told.sequences) > pieces) == (leaves, leaves)

    run(FieldService(tmp_path), story)
