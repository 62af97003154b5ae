"""Certificates: messages of a log with all that is needed to check them offline, against one public key.

A certificate holds records (messages with their place in the log and the proof of it), one checkpoint of the log with
its signatures, the keys that signed the messages, each vouched for by the log in a note of its own, and proofs that
older checkpoints are the beginning of this one. docs/evidence.md describes the file. `verify` believes nothing in it
that does not follow from the log's key, and that key is to be compared with one the reader has from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec

from coflex.domain.errors import Finding, Refused
from coflex.evidence import checkpoint as notes
from coflex.evidence import commitment, keys, merkle, message
from coflex.json_text import too_deep

FORMAT: Literal["coflex certificate v1"] = "coflex certificate v1"
SIGNER_TITLE = "coflex signer v1"
POINT, PARTY = "point", "party"
_OPEN = "open"
_FORKED = "the log signed two trees of one size; keep both checkpoints, they prove it"


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of the file: unknown names are refused."""


class Disclosed(_Struct, frozen=True):
    """A field of a document opened to the reader: see evidence/commitment.py."""

    name: str
    salt: bytes
    value: str

    @property
    def opening(self) -> commitment.Opening:
        """As commitments are checked."""
        return commitment.Opening(self.name, self.salt, self.value)


class Record(_Struct, frozen=True):
    """One message of the log. `index`: number of its leaf, from 0. `proof`: its inclusion at the checkpoint's size."""

    index: int
    message: bytes
    proof: list[bytes]
    disclosed: tuple[Disclosed, ...] = ()


class Consistency(_Struct, frozen=True):
    """Proof that the log at size `old` is the beginning of the log at size `new`."""

    old: int
    new: int
    proof: list[bytes]


class Signer(_Struct, frozen=True):
    """A key that signs messages: the log's note about it (`signer_note`) and the key's fingerprint."""

    note: str
    fingerprint: str


class Certificate(_Struct, frozen=True):
    """The file. Keys are written as `name+id+base64`; fingerprints are SHA-256 of the public key in hexadecimal."""

    checkpoint: str
    log_key: str
    log_fingerprint: str
    records: tuple[Record, ...]
    signers: tuple[Signer, ...] = ()
    witness_keys: tuple[str, ...] = ()
    consistency: tuple[Consistency, ...] = ()
    format: Literal["coflex certificate v1"] = FORMAT


@dataclass(frozen=True, slots=True)
class SignerKey:
    """Whose messages a key signs. `group`: POINT (measurements, acknowledgements) or PARTY (set points, documents).

    `number`: as messages give their signer. Valid in [starts, ends), aware datetimes; `ends` None: still valid.
    """

    group: str
    number: int
    public: bytes
    starts: datetime
    ends: datetime | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """What the reader knows from elsewhere than the certificate.

    `log`: the log's public key, 32 bytes; None: the certificate's own is taken, and its fingerprint is to be compared.
    `witnesses`: keys of the witnesses the reader trusts, of which `threshold` must have cosigned; None: all of them.
    `kept`: older (or newer) checkpoints of the same log, as notes.
    """

    log: bytes | None = None
    witnesses: tuple[notes.NoteKey, ...] = ()
    threshold: int | None = None
    kept: tuple[str, ...] = ()


# ---------------------------------------------------------------- writing


def signer_note(origin: str, key: SignerKey, signer: notes.NoteSigner) -> str:
    """The log's word, signed, that messages of this point or party carry this key's signature, from when to when.

    The text is SIGNER_TITLE, the log's origin, group and number, public key in hexadecimal, start, and end or "open".
    """
    ends = _OPEN if key.ends is None else _told(key.ends)
    lines = SIGNER_TITLE, origin, f"{key.group} {key.number}", key.public.hex(), _told(key.starts), ends
    text = "".join(f"{line}\n" for line in lines)
    return f"{text}\n{signer.line(text)}"


def certificate(
    note: str,
    log: notes.NoteKey,
    signers: Iterable[str],
    records: Iterable[Record],
    witnesses: Iterable[notes.NoteKey] = (),
    consistency: Iterable[Consistency] = (),
) -> Certificate:
    """Put a certificate together. `note`: the checkpoint; `signers`: notes of `signer_note`, one for each key needed.

    Raises: Refused where a signer's note is none.
    """
    told = tuple(Signer(one, keys.fingerprint(parse_signer(one).public)) for one in dict.fromkeys(signers))
    known = tuple(map(str, witnesses))
    return Certificate(note, str(log), log.fingerprint, tuple(records), told, known, tuple(consistency))


def encode(given: Certificate) -> bytes:
    """The file, JSON in UTF-8."""
    body = {"format": given.format, **msgspec.to_builtins(given)}
    return msgspec.json.format(msgspec.json.encode(body), indent=1) + b"\n"


def tlog_proof(given: Certificate, record: Record) -> str:
    """The record's proof as C2SP tlog-proof writes it, for the tools of others; the entry is the message's bytes."""
    proof = "".join(f"{line}\n" for line in map(_base64, record.proof))
    return f"c2sp.org/tlog-proof@v1\nindex {record.index}\n{proof}\n{given.checkpoint}"


# ---------------------------------------------------------------- reading


def parse(data: bytes) -> list[Certificate]:
    """The certificates of a file: one, a JSON list of them, or one a line. Raises: Refused (bad_certificate)."""
    try:
        if too_deep(str(data, "utf-8")):
            raise msgspec.DecodeError("it nests too deep")
        return msgspec.json.decode(data, type=list[Certificate]) if data.lstrip()[:1] == b"[" else _objects(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        fault = f"it is no certificate ({error}); give the file as the platform wrote it"
        raise Refused("certificate", [Finding("certificate", "bad_certificate", fault)]) from None


def parse_signer(note: str) -> SignerKey:
    """What a signer's note says; its signature is not checked here. Raises: Refused (bad_signer)."""
    return _signer(notes.parse_note(note).text)[1]


def verify(given: Certificate, trust: Trust | None = None) -> list[Finding]:
    """Every fault of the certificate, sorted; none means: each record was signed by its key while that was valid, and
    stands in the log that the checkpoint describes, which goes on from every checkpoint the reader kept.

    Codes: bad_key, bad_note, bad_checkpoint, bad_signer, bad_message; wrong_fingerprint, other_log_key,
    wrong_log_signature, wrong_cosignature, too_few_witnesses; unknown_signer, key_not_valid, wrong_signature,
    not_in_log, same_record, wrong_disclosure, no_record; other_log, forked, no_consistency_proof, rewritten.
    """
    trust = trust or Trust()
    try:
        log, note = notes.NoteKey.parse(given.log_key), notes.parse_note(given.checkpoint)
        point = note.checkpoint
    except Refused as error:
        return list(error.findings)
    findings = [
        *_log(given, log, note, point, trust),
        *_witnesses(given, note, trust),
        *_records(given, log, point),
        *(fault for kept in trust.kept for fault in _kept(given, log, point, kept)),
    ]
    return sorted(set(findings))


def forks(given: Sequence[Certificate]) -> list[Finding]:
    """Where certificates that may hold one by one have checkpoints that cannot both be true: `forked`."""
    seen: dict[tuple[str, str, int], tuple[int, bytes]] = {}
    findings = []
    for number, one in enumerate(given, 1):
        try:
            point = notes.parse_note(one.checkpoint).checkpoint
        except Refused:
            continue
        first, root = seen.setdefault((one.log_key, point.origin, point.size), (number, point.root))
        if root != point.root:
            findings.append(_fault(f"certificates {first} and {number}", "forked", _FORKED))
    return findings


def cosigned(given: Certificate, trust: Trust | None = None) -> dict[str, datetime]:
    """Which witnesses cosigned the checkpoint and when: of those that the reader trusts, or that the file names.

    Raises: Refused where the checkpoint or a key is none.
    """
    note, trusted = notes.parse_note(given.checkpoint), (trust or Trust()).witnesses
    known = trusted or tuple(map(notes.NoteKey.parse, given.witness_keys))
    times = ((key.name, notes.cosigned_at(note, key)) for key in known)
    return {name: datetime.fromtimestamp(min(at, 253_402_300_799), UTC) for name, at in times if at is not None}


# ---------------------------------------------------------------- the checks


def _log(
    given: Certificate, log: notes.NoteKey, note: notes.Note, point: notes.Checkpoint, trust: Trust
) -> Iterator[Finding]:
    """The checkpoint is the log's, and the log's key the reader's."""
    if given.log_fingerprint != log.fingerprint:
        yield _fault("log", "wrong_fingerprint", "the fingerprint is not that of the log's key; do not trust this file")
    if trust.log is not None and trust.log != log.public:
        yield _fault("log", "other_log_key", "the log's key is another than yours; ask for the certificate of your log")
    if log.kind != notes.LOG or log.name != point.origin or not notes.verify_note(note, log):
        yield _fault("checkpoint", "wrong_log_signature", "the log did not sign this checkpoint; trust nothing here")


def _witnesses(given: Certificate, note: notes.Note, trust: Trust) -> Iterator[Finding]:
    """The cosignatures hold, and enough of those that the reader wants are there. One key counts once."""
    for text in given.witness_keys:
        try:
            key = notes.NoteKey.parse(text)
        except Refused as error:
            yield from error.findings
            continue
        if notes.cosigned_at(note, key) is None:
            yield _fault(
                f"witness {key.name}",
                "wrong_cosignature",
                "the file names it as a witness and it did not cosign; ask for a checkpoint with its cosignature",
            )
    wanted = {key.public: key for key in trust.witnesses}
    least = len(wanted) if trust.threshold is None else trust.threshold
    there = {key.public for key in trust.witnesses if notes.cosigned_at(note, key) is not None}
    if len(there) < least:
        yield _fault(
            "witnesses",
            "too_few_witnesses",
            f"{len(there)} of your witnesses cosigned and {least} should have; ask for a checkpoint they saw",
        )


def _records(given: Certificate, log: notes.NoteKey, point: notes.Checkpoint) -> Iterator[Finding]:
    """Each record is signed by a key that the log vouches for, and is in the log."""
    vouched: dict[tuple[str, int], list[SignerKey]] = {}
    for number, signer in enumerate(given.signers, 1):
        place = f"signer {number}"
        try:
            key = _vouched(signer, log, place)
        except Refused as error:
            yield from (_fault(place, one.code, one.message) for one in error.findings)
        else:
            vouched.setdefault((key.group, key.number), []).append(key)
    if not given.records:
        yield _fault("records", "no_record", "it holds no record; ask for one that holds what you look for")
    seen: set[int | bytes] = set()
    for record in given.records:
        place = f"record {record.index}"
        if not seen.isdisjoint(same := (record.index, record.message)):
            yield _fault(place, "same_record", "it stands in this file twice; count it once")
        seen.update(same)
        leaf = merkle.leaf_hash(record.message)
        if not merkle.verify_inclusion(leaf, record.index, point.size, record.proof, point.root):
            yield _fault(place, "not_in_log", "the proof does not lead to this checkpoint; do not trust this record")
        yield from _message(record, place, vouched)


def _message(record: Record, place: str, vouched: dict[tuple[str, int], list[SignerKey]]) -> Iterator[Finding]:
    """The message is whole, and signed by a key that was valid when it was signed."""
    try:
        told = message.decode(record.message)
    except message.Malformed as error:
        yield _fault(place, "bad_message", f"{error.message} Do not trust this record.")
        return
    group = group_of(told.kind)
    known = vouched.get((group, told.signer), [])
    mine = [key for key in known if keys.verify(key.public, told.signed, told.signature)]
    name = f"{group} {told.signer}"
    if not known:
        yield _fault(place, "unknown_signer", f"the log vouches for no key of {name} here; ask for its signer note")
    elif not mine:
        yield _fault(place, "wrong_signature", f"it is not signed by the key of {name}; do not trust this record")
    elif not any(_valid(key, told.signed_at) for key in mine):
        yield _fault(place, "key_not_valid", f"the key of {name} was not valid when it signed; ask why it was taken")
    if record.disclosed:
        yield from _disclosed(told, record, place)


def _disclosed(told: message.Message, record: Record, place: str) -> list[Finding]:
    try:
        document = message.decode_document(told.body) if told.kind == message.Kind.DOCUMENT else None
    except message.Malformed:
        document = None
    return commitment.check(document, [one.opening for one in record.disclosed], place)


def _kept(given: Certificate, log: notes.NoteKey, point: notes.Checkpoint, kept: str) -> Iterator[Finding]:
    """The log at the certificate's checkpoint goes on from the one the reader kept (or leads to it)."""
    try:
        note = notes.parse_note(kept)
        mine = note.checkpoint
    except Refused as error:
        yield from (_fault("kept checkpoint", one.code, one.message) for one in error.findings)
        return
    place = f"kept checkpoint of size {mine.size}"
    if mine.origin != point.origin or not notes.verify_note(note, log):
        yield _fault(place, "other_log", "it is not of this log, or not signed by its key; give one of the same log")
        return
    old, new = sorted((mine, point), key=lambda one: one.size)
    if old.size == new.size:
        if old.root != new.root:
            yield _fault(place, "forked", _FORKED)
        return
    proofs = [one.proof for one in given.consistency if (one.old, one.new) == (old.size, new.size)]
    if not proofs and old.size:
        fault = f"the file holds no proof from size {old.size} to {new.size}; ask for it again with older={mine.size}"
        yield _fault(place, "no_consistency_proof", fault)
    elif not any(merkle.verify_consistency(old.size, new.size, old.root, new.root, one) for one in proofs or [[]]):
        yield _fault(place, "rewritten", "no proof shows that the log only grew; keep both checkpoints, ask why")


# ---------------------------------------------------------------- helpers


def group_of(kind: message.Kind) -> str:
    """Whether messages of this kind are signed by a point's key or by a party's."""
    return POINT if kind in (message.Kind.MEASUREMENT, message.Kind.ACKNOWLEDGEMENT) else PARTY


def _vouched(signer: Signer, log: notes.NoteKey, place: str) -> SignerKey:
    """The key that a signer's note tells. Raises: Refused where the log did not sign it so."""
    note = notes.parse_note(signer.note)
    origin, key = _signer(note.text)
    if origin != log.name or not notes.verify_note(note, log):
        raise Refused(place, [_fault(place, "bad_signer", "the log did not sign this note; ask for its own")])
    if keys.fingerprint(key.public) != signer.fingerprint:
        fault = "the fingerprint is not that of the key; do not trust this file"
        raise Refused(place, [_fault(place, "wrong_fingerprint", fault)])
    return key


def _signer(text: str) -> tuple[str, SignerKey]:
    """Origin and key of a signer's note. Raises: Refused (bad_signer)."""
    try:
        title, origin, who, public, starts, ends, rest = text.split("\n")
        group, _, number = who.partition(" ")
        if title != SIGNER_TITLE or rest or group not in (POINT, PARTY) or not notes.is_decimal(number):
            raise ValueError
        until = None if ends == _OPEN else _instant(ends)
        key = SignerKey(group, int(number), bytes.fromhex(public), _instant(starts), until)
    except ValueError:
        fault = "it is no note about a key; give it as the log wrote it"
        raise Refused("signer", [_fault("signer", "bad_signer", fault)]) from None
    return origin, key


def _objects(data: bytes) -> list[Certificate]:
    """One JSON object over all lines, or one a line."""
    lines = [line for line in data.splitlines() if line.strip()]
    whole = len(lines) < 2 or lines[0].strip() == b"{"
    return [msgspec.json.decode(one, type=Certificate) for one in ([data] if whole else lines)]


def _valid(key: SignerKey, signed_at: int) -> bool:
    """Whether the key was valid at an instant in ms since the epoch."""
    return _ms(key.starts) <= signed_at and (key.ends is None or signed_at < _ms(key.ends))


def _ms(instant: datetime) -> int:
    since = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def _told(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _instant(text: str) -> datetime:
    """Raises: ValueError, also for a time without a zone."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("a time without a zone")
    return instant


def _base64(one: bytes) -> str:
    encoded: str = msgspec.to_builtins(one)
    return encoded


def _fault(place: str, code: str, message: str) -> Finding:
    return Finding(place, code, message)


def consistency(hashes: merkle.Hashes, sizes: Iterable[int], new: int) -> tuple[Consistency, ...]:
    """Proofs from each of the sizes to `new` (or from `new`, where the log was larger), for a certificate."""
    pairs: Sequence[tuple[int, int]] = sorted({(min(one, new), max(one, new)) for one in sizes} - {(new, new)})
    return tuple(Consistency(old, to, merkle.consistency_proof(hashes, old, to)) for old, to in pairs if old)
