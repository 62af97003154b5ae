"""A witness: cosigns checkpoints of logs that only grow, and keeps proof against a log that does not.

The rules of C2SP tlog-witness as pure functions: `parse` reads a request, `consider` decides on it, given what the
witness cosigned last for that log. Who serves them stores what `Answer.cosigned` and `Answer.evidence` say before the
answer goes out, and lets one request of a log in at a time. `request`, `known_size` and `cosignatures` are the log's
side of the same talk.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from coflex.domain.errors import CoflexError, Conflict, Finding, Refused
from coflex.evidence import checkpoint as notes
from coflex.evidence import merkle

MOST_PROOF = 63
SIZE_TYPE = "text/x.tlog.size"
OK, BAD_REQUEST, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE = 200, 400, 403, 404, 409, 422


@dataclass(frozen=True, slots=True)
class Request:
    """What a log asks: `note` is its new checkpoint, `proof` shows that it goes on from size `old`."""

    old: int
    proof: tuple[bytes, ...]
    note: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two checkpoints that one log signed and that cannot both be true, as notes: proof of misbehaviour.

    Both are of one size with different roots, so anybody sees it from the log's key alone.
    """

    first: str
    second: str

    def proves(self, key: notes.NoteKey) -> bool:
        """Whether the log of this key signed both, and both cannot be true."""
        one, other = notes.parse_note(self.first), notes.parse_note(self.second)
        signed = notes.verify_note(one, key) and notes.verify_note(other, key)
        return (
            signed
            and one.checkpoint.origin == other.checkpoint.origin
            and _contradict(one.checkpoint, other.checkpoint)
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision. `status`, `body`: of the HTTP answer; on CONFLICT the body is the size that the witness knows.

    `cosigned`: the note that is now the last one of its log; None where nothing was cosigned. `evidence`: to be kept.
    """

    status: int
    body: str
    origin: str = ""
    cosigned: str | None = None
    evidence: Evidence | None = None

    @property
    def media_type(self) -> str:
        """Of the body."""
        return SIZE_TYPE if self.status == CONFLICT else "text/plain; charset=utf-8"


def parse(body: bytes) -> Request:
    """A request to add-checkpoint. Raises: Refused (bad_request, bad_note)."""
    try:
        head, blank, note = body.decode("utf-8").partition("\n\n")
    except UnicodeDecodeError:
        _refuse("it is no text in UTF-8")
    first, *lines = head.split("\n")
    size = first.removeprefix("old ")
    if not (blank and first.startswith("old ") and notes.is_decimal(size) and int(size) <= merkle.MAX_SIZE):
        _refuse("it does not begin with the old size and end in a checkpoint after an empty line")
    if len(lines) > MOST_PROOF:
        _refuse(f"a proof has at most {MOST_PROOF} lines")
    proof = []
    for line in lines:
        try:
            proof.append(base64.b64decode(line, validate=True))
        except ValueError:
            _refuse("a line of the proof is no base64")
    if any(len(one) != merkle.HASH_BYTES for one in proof):
        _refuse(f"a line of the proof is no hash of {merkle.HASH_BYTES} bytes")
    notes.parse_note(note)
    return Request(int(size), tuple(proof), note)


def consider(
    request: Request,
    logs: Mapping[str, Sequence[notes.NoteKey]],
    known: str | None,
    signer: notes.NoteSigner,
    at: int,
) -> Answer:
    """Cosign the checkpoint, or say why not.

    `logs`: keys of each log by its origin; one signature that holds is enough. `known`: the note cosigned last for this
    origin, None where there was none. `at`: now, whole seconds since 1970 UTC. The order of the checks is the one of
    tlog-witness: unknown origin 404, no signature of the log 403, old size above the new 400, old size not the known
    one 409, another root at the known size 409, a proof that does not hold 422.
    """
    note = notes.parse_note(request.note)
    try:
        point = note.checkpoint
    except Refused as error:
        return Answer(BAD_REQUEST, f"{error.findings[0].message}\n")
    keys = [key for key in logs.get(point.origin, ()) if key.kind == notes.LOG]
    if not keys:
        return _answer(NOT_FOUND, point, "this witness does not know the log; ask its operator to add it")
    if not any(notes.verify_note(note, key) for key in keys):
        return _answer(FORBIDDEN, point, "no signature is that of the log's key; sign with the key the witness knows")
    last = None if known is None else notes.parse_note(known).checkpoint
    evidence = Evidence(known, request.note) if known and last and _contradict(last, point) else None
    if request.old > point.size:
        return _answer(BAD_REQUEST, point, "the old size is above the new one; send a checkpoint that grew", evidence)
    size, root = (0, merkle.EMPTY_ROOT) if last is None else (last.size, last.root)
    if request.old != size or evidence:
        return Answer(CONFLICT, f"{size}\n", point.origin, evidence=evidence)
    if not merkle.verify_consistency(size, point.size, root, point.root, request.proof):
        return _answer(
            UNPROCESSABLE, point, "the proof does not lead from the old size to this checkpoint; send another"
        )
    return Answer(OK, signer.line(note.text, at), point.origin, cosigned=request.note)


# ---------------------------------------------------------------- the log's side


def request(old: int, proof: Sequence[bytes], note: str) -> bytes:
    """The body that a log sends: the size its witness knows, the proof from there, its new checkpoint."""
    lines = "".join(f"{base64.b64encode(one).decode()}\n" for one in proof)
    return f"old {old}\n{lines}\n{note}".encode()


def talk(
    note: str, known: int, prove: Callable[[int], Sequence[bytes]], trusted: Sequence[notes.NoteKey]
) -> Generator[bytes, tuple[int, str], str]:
    """What a log says to a witness: yields bodies for add-checkpoint, takes status and text of each answer, and returns
    the note with the cosignatures. Sending is the caller's, waiting for it or not.

    `known`: the size that this witness cosigned last, as far as the log knows, 0 where it does not; `prove`: the
    consistency proof from a size to the note's. Raises: Conflict where the witness knows more than this log or saw
    another tree, CoflexError where it refuses, Refused where it gives no cosignature of a trusted key.
    """
    size, told = notes.parse_note(note).checkpoint.size, None
    for _ in range(2):
        status, text = yield request(known, prove(known), note)
        if status == OK:
            return cosignatures(note, text, trusted)
        if status != CONFLICT:
            raise CoflexError(f"The witness refused with {status}: {text.strip()[:200]}", "Ask its operator why.")
        told = known_size(text)
        if told is None or told == known or told > size:
            break
        known = told
    raise Conflict(
        f"The witness knows this log at size {told}, and the checkpoint of size {size} does not go on from there.",
        "Send the newest checkpoint; if it is, find out who signed the other one.",
    )


def obtain(
    note: str,
    known: int,
    prove: Callable[[int], Sequence[bytes]],
    trusted: Sequence[notes.NoteKey],
    post: Callable[[bytes], tuple[int, str]],
) -> str:
    """`talk` carried by a `post` that sends a body to the witness and gives status and text of its answer."""
    said = talk(note, known, prove, trusted)
    body = next(said)
    while True:
        try:
            body = said.send(post(body))
        except StopIteration as end:
            return str(end.value)


def known_size(body: str) -> int | None:
    """The size that a witness says it knows in an answer of CONFLICT; None where it says none."""
    size = body.removesuffix("\n")
    return int(size) if notes.is_decimal(size) else None


def cosignatures(note: str, answer: str, trusted: Sequence[notes.NoteKey]) -> str:
    """The note with those lines of a witness's answer that hold; lines of other keys are left out.

    Raises: Refused (no_cosignature) where none holds.
    """
    lines = []
    for line in answer.splitlines():
        try:
            parsed = notes.parse_note(f"{notes.parse_note(note).text}\n{line}\n")
        except Refused:
            continue
        if any(notes.cosigned_at(parsed, key) is not None for key in trusted):
            lines.append(line)
    if not lines:
        fault = "its answer holds no cosignature of a key you trust; check the witness's key and clock"
        raise Refused("witness", [Finding("witness", "no_cosignature", fault)])
    return notes.with_lines(note, lines)


# ---------------------------------------------------------------- helpers


def _contradict(one: notes.Checkpoint, other: notes.Checkpoint) -> bool:
    return one.size == other.size and one.root != other.root


def _answer(status: int, point: notes.Checkpoint, why: str, evidence: Evidence | None = None) -> Answer:
    return Answer(status, f"{why}\n", point.origin, evidence=evidence)


def _refuse(why: str) -> NoReturn:
    fault = f"{why}; write it as C2SP tlog-witness says"
    raise Refused("request", [Finding("request", "bad_request", fault)])
