"""Signed messages: the one wire format of the field, fixed-width and little-endian.

    at    size  field
    0     1     format, 1
    1     1     kind: 1 measurement, 2 set point, 3 acknowledgement, 4 document
    2     2     n, length of the body in bytes
    4     4     signer: number of a point (kinds 1 and 3) or of a key of the platform or a party (kinds 2 and 4)
    8     8     sequence, from 1, rising by one a signer; never used again
    16    8     signed at, ms since the Unix epoch (UTC), by the signer's clock
    24    n     body
    24+n  64    Ed25519 signature (RFC 8032) over SIGNED_AS and all bytes before it

A batch is messages one after another. Times in ms are whole numbers; intervals are half-open and start-stamped; power
and energy count injection positive. docs/measurements.md explains the bodies field by field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct, error
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Floats, Ints
from coflex.json_text import loads

FORMAT = 1
SIGNED_AS = b"coflex message v1\n"
SIGNATURE_BYTES = 64
MOST_BODY = 65_535
# Format, kind, length of the body, signer, sequence, signed at.
HEADER = Struct("<BBHIQq")
# First interval's start, step, count, quantity, revision, width, scale, reserved.
MEASUREMENT = Struct("<qIHBBBbH")
_SET_POINT = Struct("<I16sqqiiB3s")
_ACKNOWLEDGEMENT = Struct("<QBB6s")
SMALLEST = HEADER.size + SIGNATURE_BYTES
SCALES = range(-9, 10)
MISSING = {2: -(1 << 15), 4: -(1 << 31)}
_TYPES: dict[int, str] = {2: "<i2", 4: "<i4"}
_LARGEST_EXACT = (1 << 53) - 1


class Kind(IntEnum):
    """What a message is."""

    MEASUREMENT = 1
    SET_POINT = 2
    ACKNOWLEDGEMENT = 3
    DOCUMENT = 4


class Quantity(IntEnum):
    """What is measured, each in its unit. Means and net sums are over the interval; injection positive."""

    ACTIVE_POWER_W = 1
    REACTIVE_POWER_VAR = 2
    VOLTAGE_V = 3
    FREQUENCY_HZ = 4
    ACTIVE_ENERGY_WH = 5
    STATE_OF_ENERGY_WH = 6
    BASELINE_W = 7


class Hop(IntEnum):
    """Who acknowledges a set point."""

    LIGHT_NODE = 3
    ENERGY_MANAGEMENT_SYSTEM = 4


class Verdict(IntEnum):
    """What became of a set point at a hop."""

    TAKEN = 0
    REFUSED = 1
    NOT_REACHABLE = 2
    DONE = 3


class Malformed(CoflexError):
    """Bytes that are no message, or values that fit into none. `refusal`: the code it is counted under."""

    code = "MALFORMED"

    def __init__(self, message: str, remedy: str, refusal: str = "bad_format") -> None:
        super().__init__(message, remedy)
        self.refusal = refusal


# ---------------------------------------------------------------- a message


@dataclass(frozen=True, slots=True)
class Message:
    """A signed message. `signed_at`: ms since the epoch, the signer's clock."""

    kind: Kind
    signer: int
    sequence: int
    signed_at: int
    body: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """What the signature is over."""
        return SIGNED_AS + unsigned(self.kind, self.signer, self.sequence, self.signed_at, self.body)

    def encode(self) -> bytes:
        """The bytes that travel and that the log's leaf is made of."""
        return unsigned(self.kind, self.signer, self.sequence, self.signed_at, self.body) + self.signature


def unsigned(kind: Kind, signer: int, sequence: int, signed_at: int, body: bytes) -> bytes:
    """Header and body. Raises Malformed when a field does not fit."""
    if sequence < 1 or len(body) > MOST_BODY:
        raise Malformed(
            f"Sequence {sequence} with a body of {len(body)} bytes is no message.",
            f"Count sequences from 1, and keep bodies to {MOST_BODY} bytes.",
        )
    try:
        return HEADER.pack(FORMAT, kind, len(body), signer, sequence, signed_at) + body
    except error:
        raise Malformed(
            f"Signer {signer}, sequence {sequence} and time {signed_at} do not fit into a message.",
            "Give the signer 32 bits, the sequence and the time 64.",
        ) from None


def seal(sign: Callable[[bytes], bytes], kind: Kind, signer: int, sequence: int, signed_at: int, body: bytes) -> bytes:
    """The bytes of a message, signed. `sign`: gives the 64 bytes of an Ed25519 signature over what it is given."""
    told = unsigned(kind, signer, sequence, signed_at, body)
    return told + sign(SIGNED_AS + told)


def decode(raw: bytes) -> Message:
    """One whole message, its signature not checked. Raises Malformed."""
    if len(raw) < SMALLEST:
        raise Malformed(f"{len(raw)} bytes are no message.", f"A message has at least {SMALLEST}.")
    form, kind, length, signer, sequence, signed_at = HEADER.unpack_from(raw)
    if form != FORMAT or kind not in _KINDS or sequence < 1 or len(raw) != SMALLEST + length:
        raise Malformed(
            f"Format {form}, kind {kind}, sequence {sequence} and {len(raw)} bytes are no message.",
            "Write messages as docs/measurements.md says.",
        )
    return Message(Kind(kind), signer, sequence, signed_at, raw[HEADER.size : -SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:])


_KINDS = frozenset(Kind)


def signed_part(raw: bytes) -> bytes:
    """Of a whole message: what its signature is over."""
    return SIGNED_AS + raw[:-SIGNATURE_BYTES]


def split(batch: bytes) -> tuple[list[bytes], int]:
    """The messages of a batch by the lengths they tell, nothing else of them checked, and where the last one ends.

    The place is short of the batch's length when what follows is no whole message.
    """
    messages: list[bytes] = []
    at, end = 0, len(batch)
    while at + SMALLEST <= end:
        past = at + SMALLEST + batch[at + 2] + (batch[at + 3] << 8)
        if past > end:
            break
        messages.append(batch[at:past])
        at = past
    return messages, at


# ---------------------------------------------------------------- measurements


@dataclass(frozen=True, slots=True)
class Measurement:
    """Readings of one quantity at one point.

    `first`: start of the first interval, ms since the epoch; `step`: length of each, ms. `integers[i] * 10**scale` is
    the value over [first + i * step, first + (i + 1) * step) in the quantity's unit; None where it is missing.
    `revision`: 0 for the first delivery, n for the nth correction. `width`: bytes of an integer, 2 or 4.
    """

    first: int
    step: int
    quantity: Quantity
    revision: int
    width: int
    scale: int
    integers: tuple[int | None, ...]

    @property
    def end(self) -> int:
        """End of the last interval, ms since the epoch."""
        return self.first + self.step * len(self.integers)

    @property
    def values(self) -> Floats:
        """In the quantity's unit, NaN where missing; shape (count,)."""
        integers = np.array([np.nan if one is None else one for one in self.integers], dtype=np.float64)
        return scaled(integers, self.scale)

    def encode(self) -> bytes:
        """The body. Raises Malformed when something does not fit."""
        return measurement(self.first, self.step, self.quantity, self.integers, self.scale, self.revision, self.width)


def measurement(
    first: int,
    step: int,
    quantity: Quantity,
    integers: Sequence[int | None],
    scale: int = 0,
    revision: int = 0,
    width: int | None = None,
) -> bytes:
    """The body of a measurement from integers, None where missing; see `Measurement`.

    `width` is the smaller one that holds them all where it is not given. Raises Malformed when something does not fit.
    """
    given = [one for one in integers if one is not None]
    if width is None:
        width = 2 if all(-(1 << 15) < one < 1 << 15 for one in given) else 4
    if width not in MISSING or any(not MISSING[width] < one < -MISSING[width] for one in given):
        raise Malformed("A value does not fit into its width.", "Give a larger scale, or width 4.", "bad_value")
    if not integers or scale not in SCALES:
        raise Malformed("A measurement needs values and a scale from -9 to 9.", "Give at least one value.", "bad_value")
    array = np.array([MISSING[width] if one is None else one for one in integers], dtype=_TYPES[width])
    try:
        head = MEASUREMENT.pack(first, step, len(array), quantity, revision, width, scale, 0)
    except error:
        raise Malformed(
            f"Start {first}, step {step}, count {len(array)} or revision {revision} does not fit.",
            "Send shorter messages, and times in ms.",
            "bad_interval",
        ) from None
    return head + array.tobytes()


def in_integers(values: Sequence[float] | Floats, scale: int) -> list[int | None]:
    """Values in a quantity's unit as integers of 10**scale, half to even; a NaN is missing. Raises Malformed on an
    infinite value."""
    array = np.asarray(values, dtype=np.float64)
    if np.isinf(array).any():
        raise Malformed("An infinite value cannot be measured.", "Send it as missing (NaN).", "bad_value")
    ratio = array / 10.0**scale if scale >= 0 else array * 10.0**-scale
    return [None if math.isnan(one) else round(one) for one in ratio.tolist()]


def scaled(integers: Floats, scale: int | Ints) -> Floats:
    """integers * 10**scale, divided where the scale is negative: the nearest float to the decimal."""
    exponent = np.asarray(scale)
    up, down = 10.0 ** np.maximum(exponent, 0), 10.0 ** np.maximum(-exponent, 0)
    return np.asarray(integers * up / down, dtype=np.float64)


def decode_measurement(body: bytes) -> Measurement:
    """Raises Malformed with the refusal code that it is counted under."""
    head = check_measurement(body)
    first, step, count, quantity, revision, width, scale, _ = head
    array = np.frombuffer(body, _TYPES[width], count, MEASUREMENT.size)
    missing = MISSING[width]
    integers = tuple(None if one == missing else one for one in array.tolist())
    return Measurement(first, step, Quantity(quantity), revision, width, scale, integers)


def check_measurement(body: bytes) -> tuple[int, int, int, int, int, int, int, int]:
    """The fixed part of a measurement's body: first, step, count, quantity, revision, width, scale, reserved.

    Raises Malformed when it is not as the format says: bad_format, bad_interval (no step, no value), wrong_unit.
    """
    if len(body) < MEASUREMENT.size:
        raise Malformed("The body is too short for a measurement.", "Write it as docs/measurements.md says.")
    head = MEASUREMENT.unpack_from(body)
    _, step, count, quantity, _, width, scale, reserved = head
    if width not in MISSING or reserved or scale not in SCALES or len(body) != MEASUREMENT.size + count * width:
        raise Malformed(
            f"{len(body)} bytes are no {count} values of width {width} and scale {scale}.",
            "Write the body as docs/measurements.md says.",
        )
    if not step or not count:
        raise Malformed("A measurement without an interval.", "Give a step and at least one value.", "bad_interval")
    if not 1 <= quantity <= 7:
        raise Malformed(f"There is no quantity {quantity}.", "Give a quantity from 1 to 7.", "wrong_unit")
    return head


# ---------------------------------------------------------------- set points, acknowledgements, documents


@dataclass(frozen=True, slots=True)
class SetPoint:
    """The power that a point is to hold in [starts, ends), ms since the epoch.

    `order`: 16 bytes that name the order. `power_w`: absolute, injection positive; `change_w`: against the baseline.
    `stops`: it ends what the order said before. `continuous`: regulation that follows a signal.
    """

    point: int
    order: bytes
    starts: int
    ends: int
    power_w: int
    change_w: int
    stops: bool = False
    continuous: bool = False

    def encode(self) -> bytes:
        """The body. Raises Malformed when something does not fit."""
        if len(self.order) != 16:
            raise Malformed(f"An order's name has 16 bytes, not {len(self.order)}.", "Give the bytes of a UUID.")
        flags = self.stops | self.continuous << 1
        fields = self.point, self.order, self.starts, self.ends, self.power_w, self.change_w
        try:
            return _SET_POINT.pack(*fields, flags, bytes(3))
        except error:
            raise Malformed(f"The set point of point {self.point} does not fit.", "Powers have 32 bits.") from None


def decode_set_point(body: bytes) -> SetPoint:
    """Raises Malformed when it is none, bad_interval when it ends before it starts."""
    if len(body) != _SET_POINT.size:
        raise Malformed(f"{len(body)} bytes are no set point.", f"A set point has {_SET_POINT.size}.")
    point, order, starts, ends, power, change, flags, reserved = _SET_POINT.unpack(body)
    if flags > 3 or any(reserved):
        raise Malformed(f"A set point has no flags {flags}.", "Use flags 1 and 2, and zeros where it is reserved.")
    if ends < starts:
        raise Malformed("A set point ends before it starts.", "Give an end no earlier than the start.", "bad_interval")
    return SetPoint(point, order, starts, ends, power, change, bool(flags & 1), bool(flags & 2))


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What became, at a hop, of the set point message with sequence `of_sequence`."""

    of_sequence: int
    hop: Hop
    verdict: Verdict

    def encode(self) -> bytes:
        """The body. Raises Malformed when something does not fit."""
        try:
            return _ACKNOWLEDGEMENT.pack(self.of_sequence, self.hop, self.verdict, bytes(6))
        except error:
            raise Malformed(f"There is no sequence {self.of_sequence}.", "Sequences have 64 bits.") from None


def decode_acknowledgement(body: bytes) -> Acknowledgement:
    """Raises Malformed when it is none."""
    if len(body) != _ACKNOWLEDGEMENT.size:
        raise Malformed(f"{len(body)} bytes are no acknowledgement.", f"One has {_ACKNOWLEDGEMENT.size}.")
    sequence, hop, verdict, reserved = _ACKNOWLEDGEMENT.unpack(body)
    if hop not in frozenset(Hop) or verdict not in frozenset(Verdict) or any(reserved):
        raise Malformed(f"There is no hop {hop} with verdict {verdict}.", "Use hops 3 and 4, verdicts 0 to 3.")
    return Acknowledgement(sequence, Hop(hop), Verdict(verdict))


def canonical(value: Any) -> bytes:
    """JSON in the form of RFC 8785, numbers as integers alone: the same value always has the same bytes.

    Raises Malformed on anything but objects, lists, strings, integers of up to 53 bits, truth values and null.
    """
    try:
        return json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise Malformed("A text with half a surrogate pair has no bytes.", "Send whole characters.") from None


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise Malformed("A document's names are texts.", "Write other names as text.")
        # RFC 8785 section 3.2.3 orders by UTF-16 code units.
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return {name: _ordered(value[name]) for name in names}
    if isinstance(value, list | tuple):
        return [_ordered(one) for one in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int) and abs(value) <= _LARGEST_EXACT:
        return int(value)
    raise Malformed(f"{value!r} has no place in a document.", "Write decimals and large numbers as text.")


def decode_document(body: bytes) -> Any:
    """The value of a document. Raises Malformed when the bytes are not its canonical form."""
    try:
        value = loads(body)
        told = canonical(value)
    except (ValueError, Malformed):
        told = None
    if told != body:
        raise Malformed("The document is not in canonical form.", "Write JSON as RFC 8785 says, without fractions.")
    return value


# ---------------------------------------------------------------- many at once


@dataclass(frozen=True, eq=False)
class Readings:
    """The values of many measurement messages, one row a value; all arrays of one length.

    `message`: which of the messages given it came from. `at`: start of its interval, ms since the epoch; `step`: ms.
    `integer` * 10**`scale`: the value in the quantity's unit, where it is not `missing`.
    """

    message: NDArray[np.uint32]
    point: NDArray[np.uint32]
    quantity: NDArray[np.uint8]
    revision: NDArray[np.uint8]
    at: Ints
    step: NDArray[np.uint32]
    integer: NDArray[np.int32]
    scale: NDArray[np.int8]
    missing: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.at)

    @property
    def values(self) -> Floats:
        """In each quantity's unit, NaN where missing."""
        values = scaled(self.integer.astype(np.float64), self.scale.astype(np.int64))
        values[self.missing] = np.nan
        return values


_HEAD = np.dtype(
    [("form", "u1"), ("kind", "u1"), ("length", "<u2"), ("signer", "<u4"), ("sequence", "<u8"), ("signed_at", "<i8"),
     ("first", "<i8"), ("step", "<u4"), ("count", "<u2"), ("quantity", "u1"), ("revision", "u1"), ("width", "u1"),
     ("scale", "i1"), ("reserved", "<u2")]
)  # fmt: skip


def decode_readings(messages: Sequence[bytes]) -> Readings:
    """The values of whole, well-formed measurement messages (as `check_measurement` accepts them), in their order."""
    data = np.frombuffer(b"".join(messages), np.uint8)
    lengths = np.fromiter(map(len, messages), np.int64, len(messages))
    starts = np.cumsum(lengths) - lengths
    heads = data[starts[:, None] + np.arange(_HEAD.itemsize)].view(_HEAD)[:, 0] if len(messages) else np.empty(0, _HEAD)
    count = heads["count"].astype(np.int64)
    total = int(count.sum())
    before = np.cumsum(count) - count
    of = np.repeat(np.arange(len(messages), dtype=np.uint32), count)
    place = np.arange(total, dtype=np.int64) - np.repeat(before, count)
    integers, missing = np.empty(total, np.int32), np.empty(total, np.bool_)
    for width, kind in _TYPES.items():
        here = np.flatnonzero(heads["width"][of] == width)
        at = starts[of[here]] + _HEAD.itemsize + place[here] * width
        found = data[at[:, None] + np.arange(width)].view(kind)[:, 0] if len(here) else np.empty(0, kind)
        integers[here], missing[here] = found, found == MISSING[width]
    fields = {name: heads[name][of] for name in ("signer", "quantity", "revision", "first", "step", "scale")}
    return Readings(
        message=of,
        point=fields["signer"].astype(np.uint32),
        quantity=fields["quantity"],
        revision=fields["revision"],
        at=fields["first"].astype(np.int64) + place * fields["step"].astype(np.int64),
        step=fields["step"].astype(np.uint32),
        integer=integers,
        scale=fields["scale"],
        missing=missing,
    )
