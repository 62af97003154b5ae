"""From bytes to what admission decides on: framing, the registered key, the signature, the values' range.

All of it concerns a message alone, so any number of threads may do it; libsodium lets go of the interpreter's lock.
"""

from __future__ import annotations

from hashlib import sha256
from math import nan
from struct import Struct
from typing import NamedTuple

from coflex.evidence import keys, message
from coflex.evidence.message import HEADER, Kind, Malformed
from coflex.metering.admission import Candidate, Signers

_POINTS = frozenset({Kind.MEASUREMENT, Kind.ACKNOWLEDGEMENT})
_HEAD_BYTES = HEADER.size + message.MEASUREMENT.size
_VALUES: dict[tuple[int, int], Struct] = {}


class Checked(NamedTuple):
    """A message that was looked at. `code`: why it is refused, empty when only admission is left to ask.

    `signer`, `sequence`: as it tells itself, 0 where it cannot be read. `leaf`: its leaf hash. `at`, `value`: start and
    value of its last reading that is not missing, in the quantity's unit; NaN where there is none.
    """

    raw: bytes
    code: str
    signer: int = 0
    sequence: int = 0
    leaf: bytes = b""
    candidate: Candidate | None = None
    at: int = 0
    value: float = nan


def check(batch: bytes, signers: Signers) -> list[Checked]:
    """All messages of a batch in their order; what follows the last whole one is one more, refused."""
    raws, end = message.split(batch)
    checked = [one(raw, signers) for raw in raws]
    if end < len(batch) or not batch:
        checked.append(Checked(batch[end:], "bad_format"))
    return checked


def one(raw: bytes, signers: Signers) -> Checked:
    """One whole message, as `message.split` gives it."""
    form, kind, _, signer, sequence, signed_at = HEADER.unpack_from(raw)
    if form != message.FORMAT or not 1 <= kind <= 4 or not 0 < sequence < 1 << 63:
        return Checked(raw, "bad_format", signer, sequence)
    row = signers.row(signer, kind not in _POINTS)
    if row is None:
        return Checked(raw, "unknown_point", signer, sequence)
    key = signers.key(row, signed_at)
    if key is None:
        return Checked(raw, "not_active", signer, sequence)
    if not keys.verify(key, message.signed_part(raw), raw[-message.SIGNATURE_BYTES :]):
        return Checked(raw, "wrong_signature", signer, sequence)
    return read(raw, row)


def read(raw: bytes, row: int) -> Checked:
    """An authentic message of the signer at `row`."""
    _, kind, _, signer, sequence, signed_at = HEADER.unpack_from(raw)
    leaf = sha256(b"\x00" + raw).digest()
    digest = int.from_bytes(leaf[:8], "little")
    if kind != Kind.MEASUREMENT:
        code = _other(kind, raw)
        return Checked(raw, code, signer, sequence, leaf, Candidate(row, kind, sequence, signed_at, digest))
    try:
        head = message.check_measurement(raw[HEADER.size : -message.SIGNATURE_BYTES])
    except Malformed as fault:
        return Checked(raw, fault.refusal, signer, sequence, leaf, Candidate(row, kind, sequence, signed_at, digest))
    first, step, count, quantity, revision, width, scale, _ = head
    low, high, place, last = _range(raw, count, width)
    factor = 10.0**scale
    candidate = Candidate(
        row, kind, sequence, signed_at, digest, first, step, count, quantity, revision, low * factor, high * factor
    )
    return Checked(raw, "", signer, sequence, leaf, candidate, first + place * step, last * factor)


def _range(raw: bytes, count: int, width: int) -> tuple[float, float, int, float]:
    """Lowest and highest integer of a measurement that is not missing, and place and value of the last of them."""
    layout = _VALUES.get((count, width))
    if layout is None:
        layout = Struct(f"<{count}{'h' if width == 2 else 'i'}")
        if len(_VALUES) < 256:  # senders choose the counts; those in use are few
            _VALUES[count, width] = layout
    values = layout.unpack_from(raw, _HEAD_BYTES)
    missing, place = message.MISSING[width], count - 1
    if missing in values:
        there = [i for i, value in enumerate(values) if value != missing]
        if not there:
            return 0.0, 0.0, place, nan
        place = there[-1]
        last, values = values[place], tuple(values[i] for i in there)
        return min(values), max(values), place, last
    return min(values), max(values), place, values[place]


def _other(kind: int, raw: bytes) -> str:
    """Whether the body of a set point, an acknowledgement or a document can be read: its refusal code."""
    body = raw[HEADER.size : -message.SIGNATURE_BYTES]
    try:
        if kind == Kind.SET_POINT:
            message.decode_set_point(body)
        elif kind == Kind.ACKNOWLEDGEMENT:
            message.decode_acknowledgement(body)
        else:
            message.decode_document(body)
    except Malformed as fault:
        return fault.refusal
    return ""
