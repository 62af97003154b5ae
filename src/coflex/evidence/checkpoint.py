"""Checkpoints: the state of a log on three lines, signed by the log and cosigned by witnesses.

Forms of the C2SP: tlog-checkpoint in a signed-note, Ed25519 (type 0x01) for the log and timestamped Ed25519
cosignatures (type 0x04, tlog-cosignature) for witnesses. Keys are written as the notes of Go's checksum database write
them: `name+id+base64` for the public half, `PRIVATE+KEY+name+id+base64` for the secret one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from coflex.domain.errors import Finding, Refused
from coflex.evidence import keys, merkle

LOG, WITNESS = 0x01, 0x04
MOST_SIGNATURES = 100
_DASH = "— "
_PRIVATE = "PRIVATE+KEY+"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log at one size. `origin`: the log's name (`coflex/<tenant>/<log>`). `size`: leaves. `root`: 32 bytes.

    `extension`: further lines, which other logs may write and ours do not.
    """

    origin: str
    size: int
    root: bytes
    extension: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NoteKey:
    """Whose signature a line is: a name, a public key of 32 bytes, and LOG or WITNESS."""

    name: str
    public: bytes
    kind: int = LOG

    @property
    def id(self) -> bytes:
        """SHA-256(name || 0x0A || kind || public key), first four bytes (signed-note)."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key alone, in hexadecimal."""
        return keys.fingerprint(self.public)

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{_base64(bytes([self.kind]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> NoteKey:
        """A key written as `name+id+base64`. Raises: Refused (bad_key)."""
        name, kind, public = _key(text, "public key")
        return cls(name, public, kind)


@dataclass(frozen=True, slots=True)
class NoteSigner:
    """A secret key and the name it signs under; the seed shows in no text but `secret`."""

    name: str
    seed: bytes = field(repr=False)
    kind: int = LOG

    @property
    def key(self) -> NoteKey:
        """The public half."""
        return NoteKey(self.name, keys.public_of(self.seed), self.kind)

    @property
    def secret(self) -> str:
        """As it is kept in a file."""
        return f"{_PRIVATE}{self.name}+{self.key.id.hex()}+{_base64(bytes([self.kind]) + self.seed)}"

    @classmethod
    def parse(cls, text: str) -> NoteSigner:
        """A secret key as `secret` writes it. Raises: Refused (bad_key), which does not repeat it."""
        if not text.startswith(_PRIVATE):
            _refuse("secret key", "bad_key", "it begins with no PRIVATE+KEY+; give the file with the secret key")
        name, kind, seed = _key(text.removeprefix(_PRIVATE), "secret key")
        return cls(name, seed, kind)

    def line(self, text: str, at: int | None = None) -> str:
        """Signature line over a note's text, with its newline; `at`, whole seconds since 1970 UTC, for a witness.

        Raises: ValueError where a log's key is given a time or a witness's is not, or the name cannot stand in a line.
        """
        if not _nameable(self.name) or (at is None) == (self.kind == WITNESS):
            raise ValueError("a witness signs with a time and a log without; names have no space and no plus")
        stamp = b"" if at is None else at.to_bytes(8, "big")
        signature = keys.sign(self.seed, _signed(text, at))
        return f"{_DASH}{self.name} {_base64(self.key.id + stamp + signature)}\n"


@dataclass(frozen=True, slots=True)
class Line:
    """One signature of a note: whose it says it is, the id of the key, and the bytes after it."""

    name: str
    key_id: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A note taken apart. `text` ends in a newline; nothing of it is true before a signature is checked."""

    text: str
    lines: tuple[Line, ...]

    @property
    def checkpoint(self) -> Checkpoint:
        """What the text says. Raises: Refused (bad_checkpoint)."""
        return parse_text(self.text)


# ---------------------------------------------------------------- writing


def note_text(checkpoint: Checkpoint) -> str:
    """The text that log and witnesses sign: origin, size, root in base64, a line each.

    Raises: ValueError for what cannot stand there.
    """
    lines = (checkpoint.origin, str(checkpoint.size), _base64(checkpoint.root), *checkpoint.extension)
    text = "".join(f"{line}\n" for line in lines)
    fits = 0 <= checkpoint.size <= merkle.MAX_SIZE and len(checkpoint.root) == merkle.HASH_BYTES
    if not (fits and all(lines) and text.count("\n") == len(lines) and _printable(text)):
        raise ValueError("a checkpoint is an origin, a size, a root of 32 bytes, and lines that are not empty")
    return text


def sign_note(checkpoint: Checkpoint, signer: NoteSigner) -> str:
    """The checkpoint as a note with the log's signature."""
    text = note_text(checkpoint)
    return f"{text}\n{signer.line(text)}"


def cosign(note: str, signer: NoteSigner, at: int) -> str:
    """A witness's cosignature line for this note; `at`: whole seconds since 1970 UTC. Raises: Refused, ValueError."""
    return signer.line(parse_note(note).text, at)


def with_lines(note: str, lines: Iterable[str]) -> str:
    """The note with more signature lines, each at most once. Raises: Refused where the whole is no note."""
    told = [line if line.endswith("\n") else f"{line}\n" for line in lines]
    whole = note + "".join(line for line in dict.fromkeys(told) if line not in note)
    parse_note(whole)
    return whole


# ---------------------------------------------------------------- reading


def parse_note(given: str | bytes) -> Note:
    """A note in its parts; no signature is checked here. Raises: Refused (bad_note)."""
    try:
        note = given if isinstance(given, str) else given.decode("utf-8")
        note.encode("utf-8")
    except UnicodeError:
        _refuse("note", "bad_note", "it is no text in UTF-8; give the checkpoint as the log wrote it")
    text, blank, tail = note.rpartition("\n\n")
    if not (blank and text and tail.endswith("\n") and _printable(note)):
        _refuse("note", "bad_note", "it is no text with signature lines after an empty line; give the whole checkpoint")
    lines = tail[:-1].split("\n")
    if len(lines) > MOST_SIGNATURES:
        _refuse("note", "bad_note", f"it has more than {MOST_SIGNATURES} signatures; leave some out")
    return Note(text + "\n", tuple(map(_line, lines)))


def parse_text(text: str) -> Checkpoint:
    """The checkpoint that a note's text says. Raises: Refused (bad_checkpoint)."""
    *lines, last = text.split("\n")
    whole = len(lines) >= 3 and all(lines) and not last
    origin, size, root, *extension = lines if whole else ("", "", "")
    digest = _decoded(root) or b""
    if not (len(digest) == merkle.HASH_BYTES and is_decimal(size) and int(size) <= merkle.MAX_SIZE):
        _refuse(
            "checkpoint", "bad_checkpoint", "its first lines are not origin, size and root; give it as it was signed"
        )
    return Checkpoint(origin, int(size), digest, tuple(extension))


def verify_note(note: Note, key: NoteKey) -> bool:
    """Whether this key signed the note: it has a line of that name and id, and every such line holds."""
    mine = _lines_of(note, key)
    return bool(mine) and all(_holds(note, key, line) for line in mine)


def cosigned_at(note: Note, key: NoteKey) -> int | None:
    """When this witness cosigned the note, whole seconds since 1970 UTC (its latest); None where it did not."""
    if key.kind != WITNESS or not verify_note(note, key):
        return None
    return max(int.from_bytes(line.body[:8], "big") for line in _lines_of(note, key))


def is_decimal(text: str) -> bool:
    """Whether this is a number in ASCII digits, without a leading zero."""
    return text.isascii() and text.isdigit() and len(text) <= 20 and (text == "0" or text[0] != "0")


# ---------------------------------------------------------------- helpers


def _lines_of(note: Note, key: NoteKey) -> list[Line]:
    """The lines that say they are this key's; others share its name or its id, never both (signed-note)."""
    return [line for line in note.lines if (line.name, line.key_id) == (key.name, key.id)]


def _holds(note: Note, key: NoteKey, line: Line) -> bool:
    if key.kind != WITNESS:
        return keys.verify(key.public, _signed(note.text, None), line.body)
    at = int.from_bytes(line.body[:8], "big")
    return at <= merkle.MAX_SIZE and keys.verify(key.public, _signed(note.text, at), line.body[8:])


def _signed(text: str, at: int | None) -> bytes:
    """The bytes under a signature: the text, for a witness after the two lines of tlog-cosignature."""
    return (text if at is None else f"cosignature/v1\ntime {at}\n{text}").encode()


def _line(given: str) -> Line:
    name, space, encoded = given.removeprefix(_DASH).partition(" ")
    body = _decoded(encoded)
    if not (given.startswith(_DASH) and space and _nameable(name)) or body is None or len(body) < 5:
        _refuse("note", "bad_note", "a line after the empty line is no signature; give the checkpoint as it was signed")
    return Line(name, body[:4], body[4:])


def _key(text: str, what: str) -> tuple[str, int, bytes]:
    """Name, kind and 32 bytes of a key as text, whose id is that of the public half."""
    name, _, rest = text.partition("+")
    given_id, _, encoded = rest.partition("+")
    body = _decoded(encoded)
    if body is None or len(body) != 33 or body[0] not in (LOG, WITNESS) or not _nameable(name):
        _refuse(what, "bad_key", "it is not written as name+id+base64 of an Ed25519 key; copy it whole")
    public = body[1:] if what == "public key" else keys.public_of(body[1:])
    if NoteKey(name, public, body[0]).id.hex() != given_id:
        _refuse(what, "bad_key", "its id does not fit name and key, so a character of it is wrong; copy it again")
    return name, body[0], body[1:]


def _nameable(name: str) -> bool:
    return bool(name) and "+" not in name and not any(letter.isspace() for letter in name) and _printable(name)


def _printable(text: str) -> bool:
    return all(letter >= " " or letter == "\n" for letter in text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes | None:
    """The bytes of standard base64 in its one right form, or None."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _base64(data) == text else None


def _refuse(what: str, code: str, message: str) -> NoReturn:
    raise Refused(what, [Finding(what, code, message)])
