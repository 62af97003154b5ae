"""From bytes to what admission decides on: framing, the registered key, the signature, the values' range.

All of it concerns a message alone, so any number of threads may do it. Signatures are most of the work; they are
asked for many at once, so that others may check them (verifying.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from math import nan
from struct import Struct
from typing import NamedTuple

from coflex.evidence import keys, message
from coflex.evidence.message import HEADER, Kind, Malformed
from coflex.metering.admission import Candidate, Signers

# Public keys, and the message that each is to have signed: whether it did.
Verify = Callable[[Sequence[bytes], Sequence[bytes]], Sequence[bool]]
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


def here(publics: Sequence[bytes], raws: Sequence[bytes]) -> list[bool]:
    """Whether each message carries the signature of the key at its place; checked one by one on this thread."""
    return [
        keys.verify(public, message.signed_part(raw), raw[-message.SIGNATURE_BYTES :])
        for public, raw in zip(publics, raws, strict=True)
    ]


def check(batches: Iterable[bytes], signers: Signers, verify: Verify = here) -> list[list[Checked]]:
    """All messages of each batch in their order; what follows the last whole one is one more, refused.

    Signatures of all batches are asked for at once.
    """
    claims: list[_Claim] = []
    bounds, rests = [], []
    for batch in batches:
        raws, end = message.split(batch)
        begin = len(claims)
        claims += [_claim(raw, signers) for raw in raws]
        bounds.append((begin, len(claims)))
        rests.append([Checked(batch[end:], "bad_format")] if end < len(batch) or not batch else [])
    asked = [claim for claim in claims if not claim.code]
    verdicts = iter(verify([claim.public for claim in asked], [claim.raw for claim in asked]) if asked else ())
    checked = [_judged(claim, not claim.code and next(verdicts)) for claim in claims]
    return [checked[begin:end] + rest for (begin, end), rest in zip(bounds, rests, strict=True)]


def one(raw: bytes, signers: Signers) -> Checked:
    """One whole message, as `message.split` gives it."""
    claim = _claim(raw, signers)
    return _judged(claim, not claim.code and here([claim.public], [raw])[0])


class _Claim(NamedTuple):
    """Whose message it says it is. `code`: why it is refused already; else `row` and key of the signer it names."""

    raw: bytes
    code: str
    signer: int
    sequence: int
    row: int = 0
    public: bytes = b""


def _claim(raw: bytes, signers: Signers) -> _Claim:
    form, kind, _, signer, sequence, signed_at = HEADER.unpack_from(raw)
    if form != message.FORMAT or not 1 <= kind <= 4 or not 0 < sequence < 1 << 63:
        return _Claim(raw, "bad_format", signer, sequence)
    row = signers.row(signer, kind not in _POINTS)
    if row is None:
        return _Claim(raw, "unknown_point", signer, sequence)
    public = signers.key(row, signed_at)
    if public is None:
        return _Claim(raw, "not_active", signer, sequence)
    return _Claim(raw, "", signer, sequence, row, public)


def _judged(claim: _Claim, authentic: bool) -> Checked:
    if authentic:
        return read(claim.raw, claim.row)
    return Checked(claim.raw, claim.code or "wrong_signature", claim.signer, claim.sequence)


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
            if not 0 < message.decode_acknowledgement(body).of_sequence < 1 << 63:
                return "bad_format"  # of no set point: none has such a sequence
        else:
            message.decode_document(body)
    except Malformed as fault:
        return fault.refusal
    return ""
