"""`coflex verify`: check certificates offline, against public keys alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import Json, application
from coflex.domain.errors import CoflexError, Finding, Refused

if TYPE_CHECKING:
    from coflex.evidence.certificate import Certificate, Record, Trust
    from coflex.evidence.checkpoint import NoteKey


class NotProven(Refused):
    """A certificate that does not hold."""

    code = "NOT_PROVEN"

    def __init__(self, file: Path, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        count = len(findings)
        faults = f"{count} fault{'s' if count != 1 else ''}"
        CoflexError.__init__(
            self, f"{file} does not hold: {faults}.", "Rely on nothing in it, and ask where it is from."
        )


class NotRead(CoflexError):
    """A key or a checkpoint that was given and is none."""

    code = "REFUSED"


def verify(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE", help="A certificate, or several in one file.")
    ],
    key: Annotated[
        str | None,
        typer.Option(
            metavar="PUBLIC", help="The log's public key, from elsewhere than the file: name+id+base64 or hex."
        ),
    ] = None,
    kept: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="OLDER_CHECKPOINT",
            help="A checkpoint, or certificate, kept from before.",
        ),
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Key of a witness that must have cosigned; as often as wanted."),
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many of the witnesses are enough; all if not given.")
    ] = None,
    records: Annotated[bool, typer.Option("--records", help="Show what the records say.")] = False,
    as_json: Json = False,
) -> None:
    """Check offline that the records of a certificate were signed, stand in the log, and that the log only grew since
    the checkpoints you kept; ends with 1 where anything does not hold.

    Example: coflex verify delivery.json --key coflex/rome/main+e88dc6dd+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs
    """
    with application(ctx, as_json):
        from coflex.evidence import certificate

        given = certificate.parse(file.read_bytes())
        if not given:
            raise NotRead(f"{file} is empty.", "Give a file with a certificate.")
        trust = _trust(key, kept or (), witness or (), threshold)
        findings = _findings(given, trust)
        if findings:
            raise NotProven(file, findings)
        answer = _answer(file, given, trust)
        if not as_json:
            screen.put_line(_sentence(answer))
            for line in map(_line, answer["records"]) if records else ():
                screen.put_line(line)
            for note in answer["notes"]:
                typer.echo(f"note: {note}", err=True)
        else:
            screen.put_json(answer)


# ---------------------------------------------------------------- what the reader gives


def _trust(key: str | None, kept: Sequence[Path], witnesses: Sequence[str], threshold: int | None) -> Trust:
    from coflex.evidence.certificate import Trust

    wanted = tuple(_note_key(text, "--witness") for text in witnesses)
    if threshold is not None and threshold > len({one.public for one in wanted}):
        raise NotRead(f"{threshold} of {len(wanted)} witnesses cannot be.", "Give --witness at least as often.")
    log = None if key is None else read_public(key)
    notes = dict.fromkeys(note for file in kept for note in read_checkpoints(file))
    return Trust(log, wanted, threshold, tuple(notes))


def read_public(text: str) -> bytes:
    """A public key as it is typed, 32 bytes: as notes write it, or in hexadecimal. Raises: NotRead."""
    try:
        public = bytes.fromhex(text)
    except ValueError:
        return _note_key(text, "--key").public
    if len(public) != 32:
        raise NotRead(f"--key has {len(public)} bytes.", "Give the 32 bytes of an Ed25519 public key.")
    return public


def _note_key(text: str, option: str) -> NoteKey:
    from coflex.evidence.checkpoint import WITNESS, NoteKey

    try:
        key = NoteKey.parse(text.strip())
    except Refused as error:
        raise NotRead(f"What {option} gives is no key.", f"In it, {error.findings[0].message}.") from None
    if (key.kind == WITNESS) is not (option == "--witness"):
        whose, other = ("a witness", "log") if key.kind == WITNESS else ("a log", "witness")
        raise NotRead(f"What {option} gives is the key of {whose}.", f"Give the {other}'s own.")
    return key


def read_checkpoints(file: Path) -> list[str]:
    """The notes in a file that somebody kept: a checkpoint, or those of its certificates. Raises: NotRead, Refused."""
    from coflex.evidence import certificate

    data = file.read_bytes()
    if data.lstrip()[:1] in (b"{", b"["):
        notes = [one.checkpoint for one in certificate.parse(data)]
        if not notes:
            raise NotRead(f"{file} is empty.", "Give a file with a checkpoint or a certificate.")
        return notes
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise NotRead(f"{file} is no checkpoint.", "Give the text that the log signed.") from None
    # Mail and editors write line ends in their own ways; what was signed has one at the end of each line.
    return [text.replace("\r\n", "\n").rstrip("\n") + "\n"]


# ---------------------------------------------------------------- what is told


def _findings(given: Sequence[Certificate], trust: Trust) -> list[Finding]:
    """All faults; with several certificates each place says of which."""
    from coflex.evidence import certificate

    several = len(given) > 1
    told = [
        Finding(f"certificate {number}, {one.place}" if several else one.place, one.code, one.message)
        for number, each in enumerate(given, 1)
        for one in certificate.verify(each, trust)
    ]
    return told + certificate.forks(given)


def _answer(file: Path, given: Sequence[Certificate], trust: Trust) -> dict[str, Any]:
    from coflex.evidence import certificate, checkpoint

    logs = [
        {
            "origin": point.origin,
            "size": point.size,
            "fingerprint": one.log_fingerprint,
            "witnesses": {name: _when(at) for name, at in certificate.cosigned(one, trust).items()},
        }
        for one in given
        for point in [checkpoint.parse_note(one.checkpoint).checkpoint]
    ]
    notes = []
    if trust.log is None:
        prints = " and ".join(dict.fromkeys(str(log["fingerprint"]) for log in logs))
        notes.append(
            f"the log's key is the file's own; compare {prints} with what the operator publishes, or give --key"
        )
    if not trust.witnesses and any(log["witnesses"] for log in logs):
        notes.append("the witnesses are those that the file names; give --witness with keys you have from elsewhere")
    records = [_record(each) for one in given for each in one.records]
    return {"file": file, "holds": True, "logs": logs, "kept": len(trust.kept), "records": records, "notes": notes}


def _sentence(answer: dict[str, Any]) -> str:
    count, kept = len(answer["records"]), answer["kept"]
    logs = [f"log {log['origin']} of size {log['size']}{_seen(log['witnesses'])}" for log in answer["logs"]]
    grew = f", which only grew since {'the checkpoint' if kept == 1 else f'the {kept} checkpoints'} you kept"
    what = (
        "1 record holds: it was signed and stands"
        if count == 1
        else f"{count} records hold: they were signed and stand"
    )
    return f"{what} in {' and '.join(dict.fromkeys(logs))}{grew if kept else ''}."


def _seen(witnesses: dict[str, str]) -> str:
    told = " and ".join(f"{name} at {at}" for name, at in witnesses.items())
    return f", cosigned by {told}" if told else ", cosigned by nobody"


def _record(record: Record) -> dict[str, Any]:
    from coflex.evidence import certificate, message

    told = message.decode(record.message)
    says: dict[str, Callable[[bytes], Any]] = {
        "MEASUREMENT": _measurement,
        "SET_POINT": _set_point,
        "ACKNOWLEDGEMENT": _acknowledgement,
        "DOCUMENT": message.decode_document,
    }
    return {
        "index": record.index,
        "kind": told.kind.name.lower(),
        "signer": f"{certificate.group_of(told.kind)} {told.signer}",
        "sequence": told.sequence,
        "signed_at": _moment(told.signed_at),
        "says": _says(says[told.kind.name], told.body),
        "disclosed": {one.name: one.value for one in record.disclosed},
    }


def _says(read: Callable[[bytes], Any], body: bytes) -> Any:
    """What a body says; one that says nothing we can read is shown as it is, for it was signed all the same."""
    from coflex.evidence.message import Malformed

    try:
        return read(body)
    except Malformed:
        return {"body": body.hex()}


def _measurement(body: bytes) -> dict[str, Any]:
    from coflex.evidence import message

    told = message.decode_measurement(body)
    values = [None if value != value else value for value in told.values.tolist()]  # what is missing is NaN
    return {
        "quantity": told.quantity.name.lower(),
        "first": _moment(told.first),
        "step_ms": told.step,
        "revision": told.revision,
        "values": values,
    }


def _set_point(body: bytes) -> dict[str, Any]:
    from coflex.evidence import message

    told = message.decode_set_point(body)
    return {
        "point": told.point,
        "order": told.order.hex(),
        "starts": _moment(told.starts),
        "ends": _moment(told.ends),
        "power_w": told.power_w,
        "change_w": told.change_w,
    }


def _acknowledgement(body: bytes) -> dict[str, Any]:
    from coflex.evidence import message

    told = message.decode_acknowledgement(body)
    return {"of_sequence": told.of_sequence, "hop": told.hop.name.lower(), "verdict": told.verdict.name.lower()}


def _line(record: dict[str, Any]) -> str:
    import json

    says = json.dumps(record["says"], ensure_ascii=False, sort_keys=True)
    disclosed = record["disclosed"]
    shown = f"; disclosed: {json.dumps(disclosed, ensure_ascii=False)}" if disclosed else ""
    return f"  {record['index']}: {record['kind']} of {record['signer']}, signed {record['signed_at']}: {says}{shown}"


def _moment(ms: int) -> str:
    """An instant in ms since the epoch, as a text; one that no calendar has stays a number."""
    try:
        return _when(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms))
    except OverflowError:
        return f"{ms} ms"


def _when(at: datetime) -> str:
    return at.isoformat(timespec="auto" if at.microsecond == 0 else "milliseconds").replace("+00:00", "Z")
