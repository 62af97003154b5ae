"""`coflex design ...`: market designs as documents, those that come with coflex and one's own."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import Json, application
from coflex.domain.errors import Finding, Refused

if TYPE_CHECKING:
    from coflex.market.design import Design

Document = Annotated[
    str, typer.Argument(metavar="DESIGN", help="Id of a design that comes with coflex, or a YAML file of your own.")
]
Own = Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE", help="YAML file of your own.")]
Drawn = Annotated[
    Path | None, typer.Option("--svg", metavar="FILE", help="Write the diagram as an SVG file in place of text.")
]

designs = typer.Typer(help="Market designs: those of coflex and your own.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class Listed:
    """A design on the list. `status`: `runs`, or `not yet` and why."""

    id: str
    status: str
    same_as: str
    title: str
    source: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What comes with coflex."""

    count: int
    runs: int
    designs: tuple[Listed, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """A sound document: its sessions, their rounds on an ordinary day, the kinds of message it asks for."""

    id: str
    sessions: tuple[str, ...]
    rounds: int
    messages: int


@designs.command("list", short_help="The designs that come with coflex.")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """The designs that come with coflex: whether each runs, what behaves the same, where it is described.

    Example: coflex design list
    """
    with application(ctx, as_json):
        from coflex.market.design import designs as shelf

        listed = tuple(_listed(name) for name in shelf())
        listing = Listing(len(listed), sum(one.status == "runs" for one in listed), listed)
        if as_json:
            screen.put_json(listing)
        else:
            screen.put_answer("design list", listing, len(listed))


def _listed(name: str) -> Listed:
    """A design as it reads. One that cannot be read does not run, and its first fault says why."""
    from coflex.market.design import load_design

    try:
        design = load_design(name)
    except Refused as refused:
        return Listed(name, f"not yet: {refused.findings[0]}", "", "", "")
    source = f"{design.source.document} {design.source.section}"
    return Listed(name, "runs", design.same_as or "", design.title, source)


@designs.command(short_help="Who tells whom what, as a diagram.")
def show(ctx: typer.Context, design: Document, svg: Drawn = None, as_json: Json = False) -> None:
    """The sequence diagram of a design: its sessions with their gates, who offers, clears, validates and is told.

    Example: coflex design show smartnet_b --svg smartnet_b.svg
    """
    with application(ctx, as_json):
        from coflex.reporting.sequence import sequence_svg, sequence_text

        read = _read(design)
        if svg is not None:
            svg.write_text(sequence_svg(read), encoding="utf-8")
        if as_json:
            screen.put_json(_told(read) | ({"svg": str(svg)} if svg is not None else {}))
        elif svg is not None:
            screen.put_line(f"Diagram: {svg}")
        else:
            screen.put_line(sequence_text(read).rstrip("\n"))


def _told(design: Design) -> dict[str, Any]:
    """The document and the exchanges that follow from it."""
    from coflex.market.design.exchanges import exchanges, operator

    told = [asdict(one) | {"function": one.function} for one in exchanges(design)]
    runs = {session.id: operator(session) for session in design.sessions}
    return design.model_dump(mode="json") | {"operators": runs, "exchanges": told}


@designs.command(short_help="Every fault of a document of your own.")
def check(ctx: typer.Context, file: Own, as_json: Json = False) -> None:
    """Every fault of a document of your own at once, each with its line and the next step, or that it is sound.

    Example: coflex design check mine.yaml
    """
    with application(ctx, as_json):
        design = _read(str(file))
        checked = _checked(design)
        if as_json:
            screen.put_json(checked)
            return
        count = len(checked.sessions)
        screen.put_line(
            f"{file} is sound: {count} session{'s' * (count != 1)} held {checked.rounds} times a day, "
            f"{checked.messages} kinds of message."
        )
        for session in design.sessions:
            gate, horizon = session.gate, session.horizon
            who, what = ", ".join(session.buyers).upper(), f"{horizon.starts} to {horizon.ends}"
            screen.put_line(f"  {session.id}: {who}, gate closes {gate.closes}, for {what}")


def _checked(design: Design) -> Checked:
    from coflex.market.design import schedule
    from coflex.market.design.document import PROBES, ZONE
    from coflex.market.design.exchanges import exchanges

    rounds = len(schedule(design, PROBES[0], ZONE))
    return Checked(design.id, tuple(session.id for session in design.sessions), rounds, len(exchanges(design)))


@designs.command(short_help="The JSON Schema that helps editors.")
def schema(ctx: typer.Context) -> None:
    """The JSON Schema of a design document, with which an editor completes and explains its keys.

    Example: coflex design schema > design.schema.json
    """
    with application(ctx, False):
        from coflex.market.design import design_schema

        screen.put_line(json.dumps(design_schema(), indent=2, ensure_ascii=False))


def _read(given: str) -> Design:
    """A design by its id, or of a file. Raises CoflexError on an unknown id, Refused on a faulty document."""
    from coflex.market.design import load_design, read_design

    file = Path(given)
    if not (file.is_file() or file.suffix in (".yaml", ".yml")):
        return load_design(given)
    try:
        return read_design(file.read_text(encoding="utf-8"), given)
    except Refused as refused:
        refused.findings = tuple(sorted(refused.findings, key=_by_line))
        raise
    except UnicodeDecodeError:
        finding = Finding(given, "not_text", "The file holds bytes that are no UTF-8 text; save it as UTF-8.")
        raise Refused(given, [finding]) from None


def _by_line(finding: Finding) -> tuple[int, Finding]:
    """Faults in the order of the file's lines, those without a line last."""
    line = re.search(r", line (\d+)", finding.place)
    return (int(line[1]) if line else sys.maxsize), finding
