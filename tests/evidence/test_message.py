"""Signed messages: every field at its place, every wrong byte refused, many decoded as one is."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.evidence import keys, message
from coflex.evidence.message import (
    Acknowledgement,
    Hop,
    Kind,
    Malformed,
    Measurement,
    Message,
    Quantity,
    SetPoint,
    Verdict,
)

# RFC 8032 section 7.1, test 1: the seed and public key of a vector that is not ours.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
AT = 1_782_900_000_000

int16, int32, int64 = (st.integers(-(1 << bits) + 1, (1 << bits) - 1) for bits in (15, 31, 63))
uint8, uint32 = st.integers(0, 255), st.integers(0, (1 << 32) - 1)


def sealed(body: bytes, kind: Kind = Kind.MEASUREMENT, signer: int = 7, sequence: int = 1, at: int = AT) -> bytes:
    return message.seal(lambda data: keys.sign(SEED, data), kind, signer, sequence, at, body)


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    width = draw(st.sampled_from([2, 4]))
    values = draw(st.lists(st.none() | (int16 if width == 2 else int32), min_size=1, max_size=40))
    return Measurement(
        draw(st.integers(0, 1 << 45)), draw(st.integers(1, 1 << 31)), Quantity(draw(st.integers(1, 7))), draw(uint8),
        width, draw(st.integers(-9, 9)), tuple(values),
    )  # fmt: skip


# ---------------------------------------------------------------- the bytes


@pytest.mark.spec("CERT-01")
def test_the_fields_stand_where_the_format_says() -> None:
    body = message.measurement(AT - 8_000, 4_000, Quantity.ACTIVE_POWER_W, [-2, None], scale=1, revision=3)
    raw = sealed(body, signer=580_000, sequence=9)
    told = struct.unpack("<BBHIQqqIHBBBbHhh64s", raw)
    assert told[:16] == (
        1, 1, 24, 580_000, 9, AT, AT - 8_000, 4_000, 2, 1, 3, 2, 1, 0, -2, -32_768,
    )  # fmt: skip
    assert keys.verify(PUBLIC, b"coflex message v1\n" + raw[:-64], told[16])
    assert message.signed_part(raw) == b"coflex message v1\n" + raw[:-64] == message.decode(raw).signed


def test_the_signature_is_over_every_byte_before_it() -> None:
    raw = sealed(message.measurement(AT, 4_000, Quantity.VOLTAGE_V, [230]))
    for place in range(len(raw) - 64):
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        assert not keys.verify(PUBLIC, message.signed_part(changed), changed[-64:])


@given(
    st.sampled_from(Kind), uint32, st.integers(1, (1 << 64) - 1), int64, st.binary(max_size=300),
    st.binary(min_size=64, max_size=64),
)  # fmt: skip
def test_a_message_comes_back_as_it_was(
    kind: Kind, signer: int, sequence: int, at: int, body: bytes, signature: bytes
) -> None:
    made = Message(kind, signer, sequence, at, body, signature)
    assert message.decode(made.encode()) == made


@given(measurements())
def test_a_measurement_comes_back_as_it_was(made: Measurement) -> None:
    assert message.decode_measurement(made.encode()) == made
    expected = [np.nan if one is None else float(f"{one}e{made.scale}") for one in made.integers]
    np.testing.assert_array_equal(made.values, expected)


@given(
    uint32,
    st.binary(min_size=16, max_size=16),
    int64,
    st.integers(0, 1 << 40),
    int32,
    int32,
    st.booleans(),
    st.booleans(),
)
def test_a_set_point_comes_back_as_it_was(
    point: int, order: bytes, starts: int, lasts: int, power: int, change: int, stops: bool, continuous: bool
) -> None:
    made = SetPoint(
        point, order, min(starts, (1 << 62)), min(starts, (1 << 62)) + lasts, power, change, stops, continuous
    )
    assert message.decode_set_point(made.encode()) == made
    assert len(made.encode()) == 48


@given(st.integers(0, (1 << 64) - 1), st.sampled_from(Hop), st.sampled_from(Verdict))
def test_an_acknowledgement_comes_back_as_it_was(sequence: int, hop: Hop, verdict: Verdict) -> None:
    made = Acknowledgement(sequence, hop, verdict)
    assert message.decode_acknowledgement(made.encode()) == made
    assert len(made.encode()) == 16


# ---------------------------------------------------------------- what is none


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[:87],
        lambda raw: b"",
        lambda raw: raw + b"\0",
        lambda raw: raw[:-1],
        lambda raw: b"\2" + raw[1:],
        lambda raw: raw[:1] + b"\0" + raw[2:],
        lambda raw: raw[:1] + b"\5" + raw[2:],
        lambda raw: raw[:8] + bytes(8) + raw[16:],
        lambda raw: raw[:2] + b"\xff\xff" + raw[4:],
    ],
)
def test_bytes_that_are_no_message_are_refused(spoil: object) -> None:
    raw = sealed(message.measurement(AT, 4_000, Quantity.VOLTAGE_V, [230]))
    with pytest.raises(Malformed) as fault:
        message.decode(spoil(raw))  # type: ignore[operator]
    assert fault.value.refusal == "bad_format"
    assert fault.value.remedy


@pytest.mark.parametrize(
    ("place", "value", "refusal"),
    [
        (8, bytes(4), "bad_interval"),
        (14, b"\0", "wrong_unit"),
        (14, b"\x08", "wrong_unit"),
        (16, b"\3", "bad_format"),
        (17, b"\x0a", "bad_format"),
        (18, b"\1\0", "bad_format"),
        (12, b"\2\0", "bad_format"),
    ],
)
def test_a_measurement_with_a_wrong_field_is_refused_by_its_code(place: int, value: bytes, refusal: str) -> None:
    body = message.measurement(AT, 4_000, Quantity.VOLTAGE_V, [230])
    with pytest.raises(Malformed) as fault:
        message.decode_measurement(body[:place] + value + body[place + len(value) :])
    assert fault.value.refusal == refusal


def test_what_does_not_fit_is_not_written() -> None:
    good = Measurement(AT, 4_000, Quantity.VOLTAGE_V, 0, 2, 0, (1,))
    for bad in (
        replace(good, integers=()),
        replace(good, integers=(1 << 15,)),
        replace(good, integers=(-(1 << 15),)),
        replace(good, width=3),
        replace(good, scale=10),
        replace(good, step=1 << 32),
        replace(good, revision=256),
        replace(good, first=1 << 63),
    ):
        with pytest.raises(Malformed):
            bad.encode()
    with pytest.raises(Malformed):
        message.unsigned(Kind.MEASUREMENT, 1, 0, AT, b"")
    with pytest.raises(Malformed):
        message.unsigned(Kind.MEASUREMENT, 1 << 32, 1, AT, b"")
    with pytest.raises(Malformed):
        message.unsigned(Kind.DOCUMENT, 1, 1, AT, bytes(65_536))
    with pytest.raises(Malformed):
        SetPoint(1, b"short", 0, 1, 0, 0).encode()
    with pytest.raises(Malformed):
        SetPoint(1, bytes(16), 0, 1, 1 << 31, 0).encode()


def test_values_become_integers_and_a_nan_is_missing() -> None:
    assert message.in_integers([1.26, float("nan"), -0.04], -1) == [13, None, 0]
    assert message.in_integers([1_250.0, 1_750.0], 2) == [12, 18]  # half to even
    with pytest.raises(Malformed) as fault:
        message.in_integers([float("inf")], 0)
    assert fault.value.refusal == "bad_value"


def test_other_bodies_with_a_wrong_byte_are_refused() -> None:
    point = SetPoint(1, bytes(16), 5, 9, 0, 0).encode()
    done = Acknowledgement(3, Hop.LIGHT_NODE, Verdict.DONE).encode()
    for bad in (point[:-1], point[:44] + b"\4" + point[45:], point[:-1] + b"\1", point[:20] + b"\x0a" + point[21:]):
        with pytest.raises(Malformed):
            message.decode_set_point(bad)
    for bad in (done + b"\0", done[:8] + b"\1" + done[9:], done[:9] + b"\4" + done[10:], done[:-1] + b"\1"):
        with pytest.raises(Malformed):
            message.decode_acknowledgement(bad)


# ---------------------------------------------------------------- documents


@pytest.mark.spec("CERT-01")
def test_documents_have_one_form() -> None:
    # RFC 8785 section 3.2.3 gives the order of these names, which is not that of code points.
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    told = message.canonical(dict.fromkeys(names, 1))
    assert list(json.loads(told)) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert message.canonical({"b": [True, None, "\u20ac\n"], "a": -3}) == '{"a":-3,"b":[true,null,"€\\n"]}'.encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53) + 1, (1 << 53) - 1) | st.text(),
    lambda some: st.lists(some, max_size=4) | st.dictionaries(st.text(), some, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_a_document_comes_back_and_is_the_same_in_any_order(value: object) -> None:
    told = message.canonical(value)
    assert message.decode_document(told) == value
    assert json.loads(told) == value


@pytest.mark.parametrize(
    "body",
    [b'{"b":1,"a":1}', b'{"a": 1}', b'{"a":1.0}', b"[1e3]", b"NaN", b"\xff", b"", b'{"a":1,"a":1}', b"[" * 9_000],
)
def test_another_form_of_a_document_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        message.decode_document(body)


@pytest.mark.parametrize("value", [1.5, float("nan"), 1 << 53, {1: 2}, b"x", "\ud800"])
def test_what_has_no_canonical_form_is_not_written(value: object) -> None:
    with pytest.raises(Malformed):
        message.canonical(value)


# ---------------------------------------------------------------- many


@given(st.lists(measurements(), max_size=8), st.binary(max_size=80))
def test_a_batch_is_split_and_decoded_as_each_message_is(made: list[Measurement], rest: bytes) -> None:
    raws = [
        message.unsigned(Kind.MEASUREMENT, number, 1, AT, one.encode()) + bytes(64)
        for number, one in enumerate(made, 3)
    ]
    whole = b"".join(raws)
    assert message.split(whole) == (raws, len(whole))
    found, end = message.split(whole + rest)
    assert found[: len(raws)] == raws
    assert end <= len(whole + rest)
    many = message.decode_readings(raws)
    each = [(number, one, i) for number, one in enumerate(made) for i in range(len(one.integers))]
    assert many.message.tolist() == [number for number, _, _ in each]
    assert many.point.tolist() == [number + 3 for number, _, _ in each]
    assert many.at.tolist() == [one.first + i * one.step for _, one, i in each]
    assert many.step.tolist() == [one.step for _, one, _ in each]
    assert many.revision.tolist() == [one.revision for _, one, _ in each]
    assert many.quantity.tolist() == [one.quantity for _, one, _ in each]
    np.testing.assert_array_equal(many.values, np.array([one.values[i] for _, one, i in each]).reshape(-1))


@given(st.binary(max_size=400))
def test_any_bytes_split_into_whole_messages_and_a_rest(data: bytes) -> None:
    found, end = message.split(data)
    assert b"".join(found) == data[:end]
    assert all(len(one) == message.SMALLEST + int.from_bytes(one[2:4], "little") for one in found)
