"""A small log of signed messages, with the keys of everybody who has a part in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from coflex.evidence import certificate, checkpoint, commitment, keys, merkle, message

ORIGIN = "coflex/rome/measurements"
LOG = checkpoint.NoteSigner(ORIGIN, bytes([1]) * 32)
WITNESSES = tuple(
    checkpoint.NoteSigner(f"witness.example/w{k}", bytes([k]) * 32, checkpoint.WITNESS) for k in (2, 3, 4)
)
DEVICE, PLATFORM = keys.Signer(bytes([5]) * 32), keys.Signer(bytes([6]) * 32)
POINT, PARTY = 4711, 1
SINCE, UNTIL = datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
AT = 1_800_000_000_000  # 2027-01-15T08:00:00Z in ms
OPENINGS = commitment.commit({"name": "Anna Bianchi", "iban": "IT60X0542811101000000123456"}, [b"a" * 32, b"b" * 32])


def measured(sequence: int, signer: keys.Signer = DEVICE, point: int = POINT, at: int = AT) -> bytes:
    """A measurement of a minute, signed."""
    values = [100 + sequence, 200, None]
    body = message.measurement(at + 60_000 * sequence, 20_000, message.Quantity.ACTIVE_POWER_W, values)
    return message.seal(signer.sign, message.Kind.MEASUREMENT, point, sequence, at + 60_000 * (sequence + 1), body)


def written(sequence: int, document: object) -> bytes:
    """A document of the platform, signed."""
    return message.seal(PLATFORM.sign, message.Kind.DOCUMENT, PARTY, sequence, AT, message.canonical(document))


@dataclass
class Book:
    """A log in memory: its messages, and what a log on disk stores of them."""

    messages: list[bytes] = field(default_factory=list)

    @property
    def leaves(self) -> list[bytes]:
        return [merkle.leaf_hash(one) for one in self.messages]

    @property
    def hashes(self) -> merkle.Hashes:
        return tiers(self.leaves)

    def root(self, size: int | None = None) -> bytes:
        tree = merkle.CompactRange()
        tree.append_many(self.leaves[:size])
        return tree.root()

    def note(self, size: int | None = None, witnesses: Sequence[checkpoint.NoteSigner] = ()) -> str:
        size = len(self.messages) if size is None else size
        note = checkpoint.sign_note(checkpoint.Checkpoint(ORIGIN, size, self.root(size)), LOG)
        return checkpoint.with_lines(note, [checkpoint.cosign(note, one, AT // 1000 + 7) for one in witnesses])

    def record(self, index: int, disclosed: Sequence[commitment.Opening] = ()) -> certificate.Record:
        shown = tuple(certificate.Disclosed(one.name, one.salt, one.value) for one in disclosed)
        proof = merkle.inclusion_proof(self.hashes, index, len(self.messages))
        return certificate.Record(index, self.messages[index], proof, shown)


def tiers(leaves: Sequence[bytes]) -> merkle.Hashes:
    """A reader of stored hashes, which are what append_many says is to be stored."""
    stored = [list(leaves), *merkle.CompactRange().append_many(leaves)]

    def read(tier: int, first: int, count: int, /) -> Sequence[bytes]:
        return stored[tier][first : first + count]

    return read


def book() -> Book:
    """Nine measurements, a document with commitments at place 9, three measurements more."""
    held = {"type": "consent", "commitments": commitment.commitments(OPENINGS)}
    return Book([*map(measured, range(1, 10)), written(1, held), *map(measured, range(10, 13))])


def vouched(
    starts: datetime = SINCE, ends: datetime | None = None, log: checkpoint.NoteSigner = LOG
) -> tuple[str, str]:
    """The log's word on the keys of the device and of the platform."""
    device = certificate.SignerKey(certificate.POINT, POINT, DEVICE.public, starts, ends)
    platform = certificate.SignerKey(certificate.PARTY, PARTY, PLATFORM.public, starts, ends)
    return certificate.signer_note(log.name, device, log), certificate.signer_note(log.name, platform, log)


def certified(kept: Sequence[int] = (), witnesses: int = 2) -> certificate.Certificate:
    """Records 0, 8 and 9 (with one field disclosed) of `book`, and proofs from the sizes kept."""
    log = book()
    records = [log.record(0), log.record(8), log.record(9, [one for one in OPENINGS if one.name == "iban"])]
    seen = WITNESSES[:witnesses]
    proofs = certificate.consistency(log.hashes, kept, len(log.messages))
    return certificate.certificate(log.note(None, seen), LOG.key, vouched(), records, [one.key for one in seen], proofs)
