"""`coflex witness ...`: a process that cosigns checkpoints of logs it was told of, as C2SP tlog-witness says.

What it cosigned last is on disk, synced, before an answer leaves; so is a pair of checkpoints that cannot both be true.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import Json, application
from coflex.adapters.cli.world import World
from coflex.domain.errors import CoflexError, Conflict, Refused
from coflex.locks import try_lock

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from coflex.evidence.checkpoint import NoteKey, NoteSigner
    from coflex.evidence.witness import Answer, Evidence

DATA = Path("witness")
MOST_BODY = 64 << 10
Tell = Callable[[str], None]

witnesses = typer.Typer(help="A witness: cosign the checkpoints of logs that only grow.", no_args_is_help=True)


class Server(Protocol):
    """The HTTP server."""

    @property
    def Listening(self) -> Callable[..., Any]:  # noqa: N802  a class there
        """host, port, tls_cert, tls_key, most_body"""
        ...

    def run(self, listening: Any, platform: Callable[[Any], Any], tell: Tell) -> None:
        """Serve until a signal ends it."""
        ...


class ServingWorld(World, Protocol):
    """An application with an HTTP server."""

    def server(self) -> Server: ...


# ---------------------------------------------------------------- commands


@witnesses.command(short_help="Make a witness's key.")
def key(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the witness: witness.example/one.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where the secret key goes; it must not be there.")
    ],
    as_json: Json = False,
) -> None:
    """Make a key, write its secret half where only you can read it, and say the public half that logs and readers need.

    Example: coflex witness key witness.example/one --out witness.key
    """
    with application(ctx, as_json):
        from coflex.evidence.checkpoint import WITNESS, NoteKey, NoteSigner

        signer = NoteSigner(name, os.urandom(32), WITNESS)
        NoteKey.parse(str(signer.key))  # a name that cannot stand in a note is refused before anything is written
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(f"{signer.secret}\n")
        answer = {"key": str(signer.key), "fingerprint": signer.key.fingerprint, "file": out}
        if as_json:
            screen.put_json(answer)
        else:
            screen.put_line(str(signer.key))


@witnesses.command(short_help="Cosign checkpoints over HTTP.")
def serve(
    ctx: typer.Context,
    key: Annotated[
        Path, typer.Option("--key", exists=True, dir_okay=False, metavar="FILE", help="The secret key of this witness.")
    ],
    logs: Annotated[
        Path,
        typer.Option(
            "--logs", exists=True, dir_okay=False, metavar="FILE", help="Public keys of the logs, one a line."
        ),
    ],
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Where it keeps what it cosigned.")] = DATA,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free one.")] = 8090,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate, PEM: speak HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Key of the certificate, PEM.")] = None,
) -> None:
    """Cosign the checkpoints of the logs given, until Ctrl+C or SIGTERM: POST /add-checkpoint of C2SP tlog-witness.

    Example: coflex witness serve --key witness.key --logs logs.txt --data /var/lib/coflex-witness
    """
    with application(ctx, False) as world:
        signer, known = read_key(key), read_logs(logs)
        server = cast("ServingWorld", world).server()
        kept = Kept(data)
        listening = server.Listening(host=host, port=port, tls_cert=tls_cert, tls_key=tls_key, most_body=MOST_BODY)

        @asynccontextmanager
        async def platform(_: object) -> AsyncIterator[Starlette]:
            _tell(f"witness {signer.key} for {len(known)} log{'s' if len(known) != 1 else ''}")
            yield app(Desk(signer, known, kept, _now, _tell))

        try:
            for origin in known:
                kept.last(origin)  # what is damaged is told before anybody is answered
            server.run(listening, platform, _tell)
        finally:
            kept.close()


# ---------------------------------------------------------------- what it is given


def read_key(file: Path) -> NoteSigner:
    """The witness's secret key. Raises: CoflexError for another kind of key or none."""
    from coflex.evidence.checkpoint import WITNESS, NoteSigner

    try:
        signer = NoteSigner.parse(file.read_text(encoding="utf-8").strip())
    except (Refused, UnicodeDecodeError):
        raise CoflexError(f"{file} holds no secret key.", "Give the file that coflex witness key wrote.") from None
    if signer.kind != WITNESS:
        raise CoflexError(f"{file} holds the key of a log.", "A witness needs its own: coflex witness key.")
    return signer


def read_logs(file: Path) -> dict[str, list[NoteKey]]:
    """Keys of each log by its origin. A line: the public key, and the origin where it is not the key's name; what
    follows a # is left out. Raises: CoflexError."""
    from coflex.evidence.checkpoint import LOG, NoteKey

    logs: dict[str, list[NoteKey]] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise CoflexError(f"{file} is no text in UTF-8.", "Write the public key of each log on a line.") from None
    for number, line in enumerate(lines, 1):
        text, _, origin = line.partition("#")[0].strip().partition(" ")
        if not text:
            continue
        try:
            key = NoteKey.parse(text)
        except Refused as error:
            fault = f"{error.findings[0].message}."
            raise CoflexError(f"{file}, line {number} is no key of a log.", f"In it, {fault}") from None
        if key.kind != LOG:
            raise CoflexError(f"{file}, line {number} is the key of a witness.", "Give the log's.")
        logs.setdefault(origin.strip() or key.name, []).append(key)
    if not logs:
        raise CoflexError(f"{file} names no log.", "Write the public key of each log on a line.")
    return logs


# ---------------------------------------------------------------- what it keeps


class Kept:
    """The last note cosigned for each origin, and proof of misbehaviour, as files of one folder that one process holds.

    `<digest of the origin>.note` is the note; `evidence/<digest of the origin>.txt` two notes that contradict each
    other, one after the other: the first such pair of a log is kept, and says enough of it.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "evidence").mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not try_lock(self._lock):
            os.close(self._lock)
            fault = f"Another witness works on {folder}."
            raise Conflict(fault, "Stop it, or give another --data; two witnesses never share one.")

    def close(self) -> None:
        """Let another process have the folder."""
        os.close(self._lock)

    def last(self, origin: str) -> str | None:
        """The note cosigned last, None where there was none. Raises: CoflexError where it cannot be read any more."""
        from coflex.evidence.checkpoint import parse_note

        place = self._place(origin)
        try:
            note = place.read_text(encoding="utf-8")
            _ = parse_note(note).checkpoint
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, Refused):
            fault = f"{place} is damaged: what this witness cosigned last is not known any more."
            raise CoflexError(
                fault, "Bring it back as it was last, or begin with a new key and a new folder."
            ) from None
        return note

    def keep(self, origin: str, note: str) -> None:
        """Put a note in the place of the last one; it is on disk on return."""
        _write(self._place(origin), note)

    def accuse(self, origin: str, evidence: Evidence) -> Path | None:
        """Keep proof of misbehaviour; it is on disk on return. The file's place where it is the log's first."""
        file = self._folder / "evidence" / f"{_digest(origin)}.txt"
        if file.exists():
            return None
        _write(file, f"{evidence.first}\n{evidence.second}")
        return file

    def _place(self, origin: str) -> Path:
        return self._folder / f"{_digest(origin)}.note"


def _write(file: Path, text: str) -> None:
    """Whole or not at all, and synced: a new file takes the old one's name, then the folder is synced too."""
    fresh = file.with_suffix(".new")
    with fresh.open("w", encoding="utf-8", newline="") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------- what it answers


class Desk:
    """Takes one request at a time: what was cosigned last is read, held against the request, and replaced together."""

    def __init__(
        self,
        signer: NoteSigner,
        logs: Mapping[str, list[NoteKey]],
        kept: Kept,
        now: Callable[[], int],
        tell: Tell,
    ) -> None:
        self._signer, self._logs, self._kept, self._now, self._tell = signer, logs, kept, now, tell
        self._one = threading.Lock()

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer a request; what the answer rests on is on disk when this returns."""
        from coflex.evidence import witness

        try:
            request = witness.parse(body)
            origin = request.note.partition("\n")[0]
        except Refused as error:
            return witness.Answer(witness.BAD_REQUEST, f"{error.findings[0].message}\n")
        with self._one:
            last = self._kept.last(origin) if origin in self._logs else None
            answer = witness.consider(request, self._logs, last, self._signer, self._now())
            if answer.evidence and (file := self._kept.accuse(origin, answer.evidence)):
                self._tell(f"log {origin} signed two trees of one size: the proof is in {file}")
            if answer.cosigned and answer.cosigned != last:
                self._kept.keep(origin, answer.cosigned)
        return answer


def app(desk: Desk) -> Starlette:
    """The HTTP side: POST /add-checkpoint."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def add_checkpoint(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BODY:
                return PlainTextResponse(f"a request has at most {MOST_BODY} bytes\n", 413)
        answer = await run_in_threadpool(desk.add_checkpoint, body)
        return PlainTextResponse(answer.body, answer.status, {"content-type": answer.media_type})

    return Starlette(routes=[Route("/add-checkpoint", add_checkpoint, methods=["POST"])])


def _now() -> int:
    return int(time.time())


def _tell(line: str) -> None:
    """A line at once, also where stdout is no terminal."""
    print(line, flush=True)
