"""`coflex anchor ...`: checkpoints, and terms of settlement, in the contract of an EVM chain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import Json, application
from coflex.adapters.cli.verify import NotProven, NotRead, read_checkpoints, read_public
from coflex.adapters.cli.world import World

if TYPE_CHECKING:
    from coflex.evidence.checkpoint import Checkpoint

anchors = typer.Typer(
    help="A contract that keeps checkpoints and terms where nobody can change them.", no_args_is_help=True
)

File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="CHECKPOINT", help="Or a certificate.")]
Document = Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="DOCUMENT", help="The rule document.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Id of the terms.")]
Chain = Annotated[
    str, typer.Option("--chain", metavar="URL", envvar="COFLEX_CHAIN", help="JSON-RPC address of a node.")
]
Contract = Annotated[
    str, typer.Option("--contract", metavar="ADDRESS", envvar="COFLEX_CONTRACT", help="Address of the contract.")
]
Secret = Annotated[
    Path,
    typer.Option(
        "--secret", exists=True, dir_okay=False, metavar="FILE", help="Key of the account that pays, hexadecimal."
    ),
]
LogKey = Annotated[str, typer.Option("--key", metavar="PUBLIC", help="The log's public key.")]


class ChainModule(Protocol):
    """The contract on a chain."""

    @property
    def Anchor(self) -> Any:  # noqa: N802  a class there
        """chain, address, secret; and `deploy`"""
        ...

    def connect(self, url: str) -> Any: ...


class ChainWorld(World, Protocol):
    """An application that reaches chains."""

    def chain(self) -> ChainModule: ...


@anchors.command(short_help="Put a new contract on a chain.")
def deploy(ctx: typer.Context, chain: Chain, secret: Secret, as_json: Json = False) -> None:
    """Put a new contract on a chain; the account that pays is its owner, and alone may anchor and register.

    Example: coflex anchor deploy --chain http://127.0.0.1:8545 --secret account.key
    """
    with application(ctx, as_json) as world:
        module = cast("ChainWorld", world).chain()
        made = module.Anchor.deploy(module.connect(chain), _secret(secret))
        _show("anchor deploy", {"contract": made.address, "owner": made.owner}, as_json)


@anchors.command(short_help="Anchor a checkpoint.")
def put(
    ctx: typer.Context,
    checkpoint: File,
    key: LogKey,
    chain: Chain,
    contract: Contract,
    secret: Secret,
    as_json: Json = False,
) -> None:
    """Anchor a checkpoint that the log signed; it must be larger than the log's last one there.

    Example: coflex anchor put checkpoint.txt --key KEY --chain URL --contract ADDRESS --secret account.key
    """
    with _contract(ctx, chain, contract, secret, as_json) as there:
        receipt = there.anchor(_signed(checkpoint, key))
        _show("anchor put", asdict(receipt), as_json)


@anchors.command(short_help="Hold a checkpoint against the chain.")
def check(
    ctx: typer.Context,
    checkpoint: File,
    key: LogKey,
    chain: Chain,
    contract: Contract,
    finalized: Annotated[bool, typer.Option("--finalized", help="Only what the chain can no longer undo.")] = False,
    as_json: Json = False,
) -> None:
    """Hold a checkpoint that the log signed against what the chain keeps; ends with 1 where they differ.

    Example: coflex anchor check checkpoint.txt --key KEY --chain URL --contract ADDRESS
    """
    with _contract(ctx, chain, contract, None, as_json) as there:
        point, block = _signed(checkpoint, key), "finalized" if finalized else "latest"
        findings = there.check(point, block)
        if findings:
            raise NotProven(checkpoint, findings)
        at = there.read(point.origin, point.size, block).at.isoformat().replace("+00:00", "Z")
        _show("anchor check", {"origin": point.origin, "size": point.size, "anchored": at}, as_json)


@anchors.command(short_help="Register terms of settlement.")
def register(
    ctx: typer.Context,
    name: Name,
    document: Document,
    first: Annotated[str, typer.Argument(metavar="FIRST", help="Account of one party.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Account of the other.")],
    chain: Chain,
    contract: Contract,
    secret: Secret,
    as_json: Json = False,
) -> None:
    """Register terms of settlement between two parties by the hash of the rule document; a name is used once.

    Example: coflex anchor register rome-2027 rules.yaml 0xA... 0xB... --chain URL --contract ADDRESS --secret a.key
    """
    with _contract(ctx, chain, contract, secret, as_json) as there:
        receipt = there.register(name, document.read_bytes(), first, second)
        _show("anchor register", asdict(receipt), as_json)


@anchors.command(short_help="Agree to terms of settlement.")
def agree(
    ctx: typer.Context,
    name: Name,
    document: Document,
    chain: Chain,
    contract: Contract,
    secret: Secret,
    as_json: Json = False,
) -> None:
    """Agree to terms as one of their two parties; the document must be the one that was registered.

    Example: coflex anchor agree rome-2027 rules.yaml --chain URL --contract ADDRESS --secret account.key
    """
    with _contract(ctx, chain, contract, secret, as_json) as there:
        receipt = there.agree(name, document.read_bytes())
        _show("anchor agree", asdict(receipt), as_json)


@anchors.command(short_help="Say what terms are registered, and who agreed.")
def terms(ctx: typer.Context, name: Name, chain: Chain, contract: Contract, as_json: Json = False) -> None:
    """Say whose terms these are, the hash of their document, and who agreed when.

    Example: coflex anchor terms rome-2027 --chain URL --contract ADDRESS
    """
    with _contract(ctx, chain, contract, None, as_json) as there:
        found = there.terms(name)
        if found is None:
            raise NotRead(f"There are no terms '{name}' in this contract.", "Check the name, or register them.")
        said = {
            party: "not yet" if at is None else at.isoformat().replace("+00:00", "Z")
            for party, at in zip(found.parties, found.agreed, strict=True)
        }
        _show("anchor terms", {"document": found.document.hex(), "in_force": found.in_force, "agreed": said}, as_json)


# ---------------------------------------------------------------- helpers


@contextmanager
def _contract(ctx: typer.Context, chain: str, address: str, secret: Path | None, as_json: bool) -> Iterator[Any]:
    with application(ctx, as_json) as world:
        module = cast("ChainWorld", world).chain()
        yield module.Anchor(module.connect(chain), address, None if secret is None else _secret(secret))


def _secret(file: Path) -> bytes:
    """Key of an account, 32 bytes in hexadecimal; the fault does not repeat it."""
    try:
        key = bytes.fromhex(file.read_text(encoding="utf-8").strip().removeprefix("0x"))
    except ValueError:
        key = b""
    if len(key) != 32:
        raise NotRead(f"{file} holds no key of an account.", "Give a file with 64 hexadecimal digits.")
    return key


def _signed(file: Path, key: str) -> Checkpoint:
    """The checkpoint of a file, if the log signed it."""
    from coflex.evidence import checkpoint as notes

    held, *others = read_checkpoints(file)
    if others:
        raise NotRead(f"{file} holds {len(others) + 1} checkpoints.", "Give a file with one.")
    note = notes.parse_note(held)
    point = note.checkpoint
    if not notes.verify_note(note, notes.NoteKey(point.origin, read_public(key))):
        raise NotRead(f"{file} is not signed by this log's key.", "Give a checkpoint, and the key, of one log.")
    return point


def _show(title: str, answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        screen.put_json(answer)
        return
    rows = [
        (k, v) for name, told in answer.items() for k, v in (told.items() if isinstance(told, dict) else [(name, told)])
    ]
    screen.put_table(title, [(str(k).replace("_", " "), str(v)) for k, v in rows])
