"""What the command line shows: answers on stdout, progress and faults on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from coflex.adapters.cli.world import DayRun
from coflex.domain.errors import CoflexError, Refused

# By the end of a field's name: what stands for it in words, its unit and decimals.
_UNITS = {
    "mwh": (" energy", "MWh", 3),
    "kw": (" power", "kW", 0),
    "eur": ("", "EUR", 2),
    "seconds": (" time", "s", 3),
}
# Below this a figure is what is left of a zero.
_NOTHING = 1e-9
# Units that stand behind a number as they are.
_PLAIN_UNITS = {"mw": "MW", "mvar": "Mvar", "pu": "pu"}


# ---------------------------------------------------------------- answers


def put_json(answer: Any) -> None:
    """One object on one line, keys sorted; decimals and paths as texts."""
    body = answer if isinstance(answer, dict) else asdict(answer)
    print(json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str))


def put_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Two columns under a title."""
    width = max(len(name) for name, _ in rows)
    print("\n".join([title, *(f"  {name:{width}}  {value}".rstrip() for name, value in rows)]))


@dataclass(frozen=True, slots=True)
class _Pair:
    name: str
    value: float


def put_answer(title: str, answer: Any, most: int) -> None:
    """Scalars as two columns, then each table of rows (at most so many), then findings, each on its line."""
    scalars: list[tuple[str, str]] = []
    tables: list[tuple[str, Sequence[Any]]] = []
    findings: Sequence[Any] = ()
    for field in fields(answer):
        value = getattr(answer, field.name)
        if field.name == "findings":
            findings = value
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            tables.append((field.name.replace("_", " "), value))
        elif isinstance(value, dict):
            pairs = [_Pair(str(name), figure) for name, figure in value.items()]
            tables += [(field.name.replace("_", " "), pairs)] if pairs else []
        elif not (isinstance(value, tuple) and not value):
            scalars.append(_measured(field.name, ", ".join(map(str, value)) if isinstance(value, tuple) else value))
    put_table(title, scalars)
    for name, rows in tables if most else ():
        _put_rows(name, rows, most)
    for finding in findings:
        print(f"note: {finding}")


def _measured(name: str, value: Any) -> tuple[str, str]:
    """A figure of a study with the digits that studies are compared by."""
    words, told = _fact(name, value)
    unit = told.rpartition(" ")[2]
    return (words, f"{_cell(value)} {unit}") if isinstance(value, float) and " " in told else (words, told)


def _put_rows(name: str, rows: Sequence[Any], most: int) -> None:
    head = [field.name for field in fields(rows[0])]
    cells = [[_cell(getattr(row, column)) for column in head] for row in rows[:most]]
    width = [max(len(line[k]) for line in [head, *cells]) for k in range(len(head))]
    number = [isinstance(getattr(rows[0], column), float | int) for column in head]
    print(f"\n{name}" + (f" (the first {most} of {len(rows)})" if len(rows) > most else ""))
    for line in [head, *cells]:
        told = (f"{c:>{w}}" if n else f"{c:{w}}" for c, w, n in zip(line, width, number, strict=True))
        print("  " + "  ".join(told).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return "0" if abs(value) < _NOTHING else f"{value:.6g}"


def put_line(text: str) -> None:
    """One line of plain text."""
    print(text)


def facts(answer: Any) -> list[tuple[str, str]]:
    """The fields of an answer in words, with their units."""
    return [_fact(field.name, getattr(answer, field.name)) for field in fields(answer)]


def _fact(name: str, value: Any) -> tuple[str, str]:
    words, _, ending = name.replace("_", " ").rpartition(" ")
    if words and ending == "cents":
        return words, f"{Decimal(value) / 100:.2f} EUR"
    if words and ending in _UNITS:
        noun, unit, digits = _UNITS[ending]
        return words + noun, f"{Decimal(value):.{digits}f} {unit}"
    if words and ending in _PLAIN_UNITS:
        return words, f"{_cell(value)} {_PLAIN_UNITS[ending]}"
    if isinstance(value, dict):
        return name, ", ".join(f"{key.replace('_', ' ')} {item}" for key, item in value.items())
    return name.replace("_", " "), _cell(value)


def put_summary(day: DayRun) -> None:
    """The day on a dozen lines, and where its report is."""
    report, settled, first = day.reported, day.settled, day.cleared[0]
    seen = report.violations
    rows = [
        ("sessions cleared", f"{report.sessions}, with {report.offers} offers and {report.awards} definitive awards"),
        ("violations foreseen", f"{seen['forecast']}, and {seen['planned']} with what was bought"),
        ("violations that came", f"{seen['actual']}, and {seen['untouched']} had nothing been called"),
        ("energy bought", f"{report.local_mwh:.2f} MWh for the local grid, {report.global_mwh:.2f} MWh for the system"),
        ("energy delivered", f"{settled.delivered_mwh:.2f} MWh of {settled.ordered_mwh:.2f} MWh ordered"),
        ("paid by operators", f"{report.paid_eur} EUR"),
        ("received by providers", f"{report.received_eur} EUR, after {report.fees_eur} EUR of fees"),
        ("first clearing", f"{first.solver_seconds:.2f} s in the solver, {first.total_seconds:.2f} s in all"),
        ("whole day", f"{day.seconds:.1f} s"),
    ]
    put_table("The day", rows)
    put_line(f"Report: {report.page}")


# ---------------------------------------------------------------- progress


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Tells each step as it begins: a line that changes on a terminal, a line each elsewhere."""
    if not sys.stderr.isatty():
        yield lambda step: print(step, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("start", total=None)
        yield lambda step: bar.update(task, description=step)


# ---------------------------------------------------------------- faults


def put_fault(error: CoflexError, as_json: bool) -> None:
    """What is wrong and what to do on stderr, each finding on its line; with `as_json` also as an object on stdout."""
    findings = error.findings if isinstance(error, Refused) else ()
    print(error, file=sys.stderr)
    for finding in findings:
        print(f"  {finding}", file=sys.stderr)
    if as_json:
        put_json(
            {
                "error": error.code,
                "message": error.message,
                "remedy": error.remedy,
                "findings": [asdict(finding) for finding in findings],
            }
        )


def of_system(error: OSError) -> CoflexError:
    """What the operating system refused, as one of ours."""
    where = f" ({Path(error.filename)})" if isinstance(error.filename, str) else ""
    return CoflexError(
        f"The system says: {error.strerror or error}{where}.", "Check the place and its rights, then try again."
    )


def unexpected(error: Exception) -> CoflexError:
    """A fault of the program, as one of ours."""
    return CoflexError(
        f"Something went wrong inside coflex ({type(error).__name__}: {error}).",
        "Run the same with coflex --debug in front to see where, and report it.",
    )
