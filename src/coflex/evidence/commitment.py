"""Salted commitments: personal data stays outside the log, and can still be proven, field by field, or be erased.

A document in the log holds under COMMITMENTS, for each field of a person's record, the hash of a salt and the value:

    SHA-256("coflex commitment v1\\n" || salt || length of the name || name || value)

with a salt of 32 bytes from a random source, one for each field, never used again; the length is two bytes, big-endian,
and texts are UTF-8. The hash binds: nobody finds another value for it. It hides: without the salt, guessing a value
proves nothing, so the hash says nothing about the person once salt and value are deleted, and the log stays as it was.
Whoever is shown salt and value of one field learns nothing of the others.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from coflex.domain.errors import Finding

SALT_BYTES = 32
COMMITMENTS = "commitments"
_DOMAIN = b"coflex commitment v1\n"


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens one commitment: the field's name, its salt and its value. Deleting it erases the field."""

    name: str
    salt: bytes = field(repr=False)
    value: str = field(repr=False)

    @property
    def commitment(self) -> str:
        """The hash that stands in the log, 64 hexadecimal digits. Raises: ValueError for a salt of another length."""
        name = self.name.encode()
        if len(self.salt) != SALT_BYTES or len(name) >= 1 << 16:
            raise ValueError(f"a salt has {SALT_BYTES} bytes and a field's name fewer than 65,536")
        told = len(name).to_bytes(2, "big") + name + self.value.encode()
        return hashlib.sha256(_DOMAIN + self.salt + told).hexdigest()


def commit(record: Mapping[str, str], salts: Iterable[bytes]) -> tuple[Opening, ...]:
    """Openings for the fields of a record, in order of their names, each with its own salt.

    The caller draws the salts (`secrets.token_bytes`), keeps the openings beside the log and puts `commitments` in it.
    Raises: ValueError where salts are too few, repeated, or of another length than 32 bytes.
    """
    drawn = list(salts)
    if len(drawn) != len(record) or len(set(drawn)) != len(drawn) or any(len(salt) != SALT_BYTES for salt in drawn):
        raise ValueError(f"every field needs a salt of its own, of {SALT_BYTES} random bytes")
    return tuple(Opening(name, salt, record[name]) for name, salt in zip(sorted(record), drawn, strict=True))


def commitments(openings: Iterable[Opening]) -> dict[str, str]:
    """What a document holds under COMMITMENTS: field to hash in hexadecimal."""
    return {opening.name: opening.commitment for opening in openings}


def check(document: object, openings: Iterable[Opening], place: str) -> list[Finding]:
    """Whether each opening is what the document committed to; a finding for each that is not.

    `document`: the value of a document of the log. Fields without an opening stay hidden, which is no fault.
    """
    held = document.get(COMMITMENTS) if isinstance(document, dict) else None
    known = held if isinstance(held, dict) else {}
    return [
        Finding(
            place,
            "wrong_disclosure",
            f"the value shown for {opening.name} is not what was committed to; ask for the record's own",
        )
        for opening in openings
        if not _opens(opening, str(known.get(opening.name)))
    ]


def _opens(opening: Opening, held: str) -> bool:
    try:
        return hmac.compare_digest(opening.commitment.encode(), held.encode())
    except ValueError:  # a salt or a name that no commitment has
        return False
