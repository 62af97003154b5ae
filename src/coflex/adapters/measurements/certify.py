"""Certificates of messages in the log: the file that `coflex verify` reads (evidence/certificate.py)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from coflex.adapters.measurements.log import Log
from coflex.domain.errors import NotFound
from coflex.evidence import certificate as form
from coflex.evidence import keys
from coflex.evidence.certificate import Certificate, Record, SignerKey
from coflex.evidence.checkpoint import NoteKey, parse_note
from coflex.evidence.message import HEADER, SIGNATURE_BYTES, Kind, signed_part
from coflex.metering.admission import FOREVER, Signers

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)


def certificate(
    log: Log,
    signers: Signers,
    leaves: Iterable[int],
    older: Iterable[int] = (),
    note: str | None = None,
    witnesses: Iterable[NoteKey] = (),
) -> Certificate:
    """The certificate of the messages with these numbers in the log.

    `note`: a checkpoint of the log, with cosignatures of `witnesses`; the last one if None. `older`: sizes of
    checkpoints that readers may have kept. Raises NotFound when the checkpoint does not cover a message, when the key
    that signed it is not registered for its time, or when the log is smaller than an older size.
    """
    sizes = set(older)
    if max(sizes, default=0) > log.size:
        fault = f"The log ends at size {log.size}, before {max(sizes)}."
        raise NotFound(fault, "If you have a checkpoint of that size, keep it: it proves that the log forgot.")
    note = note or log.note
    size = parse_note(note).checkpoint.size
    records, signed_by = [], []
    for leaf in dict.fromkeys(leaves):
        raw = log.read(leaf, 1) if 0 <= leaf < size else []
        if not raw:
            raise NotFound(f"The checkpoint of size {size} covers no message {leaf}.", "Ask for an earlier one.")
        records.append(Record(leaf, raw[0], log.inclusion(leaf, size)))
        signed_by.append(_key(signers, raw[0]))
    told = [form.signer_note(log.origin, key, log.signer) for key in dict.fromkeys(signed_by)]
    steps = form.consistency(log.hashes, sizes, size)
    return form.certificate(note, log.key, told, records, witnesses, steps)


def _key(signers: Signers, raw: bytes) -> SignerKey:
    _, kind, _, number, _, signed_at = HEADER.unpack_from(raw)
    group = form.group_of(Kind(kind))
    row = signers.row(number, group == form.PARTY)
    held = None if row is None else signers.validity(row, signed_at)
    if held is None or not keys.verify(held[2], signed_part(raw), raw[-SIGNATURE_BYTES:]):
        fault = f"The key with which {group} {number} signed is not registered for that time."
        raise NotFound(fault, "Register it again for the time before the one that came after it.")
    since, until, key = held
    ends = None if until == FOREVER else _instant(until)
    return SignerKey(group, number, key, _instant(since), ends)


def _instant(ms: int) -> datetime:
    most = (_LATEST - _EPOCH) // timedelta(milliseconds=1)
    return _EPOCH + timedelta(milliseconds=min(max(ms, 0), most))
