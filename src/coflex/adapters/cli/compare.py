"""`coflex compare ...`: any set of market designs on the same cases, side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import EXIT_REFUSED, Json, application

EVERY = "all"
# Runs that came to nothing for one reason are named up to this many.
_NAMED = 6

Designs = Annotated[
    list[str],
    typer.Argument(metavar="DESIGN...", help="Ids of designs that come with coflex, YAML files of your own, or all."),
]


class Lever(StrEnum):
    """What of a case can be varied."""

    LIQUIDITY = "liquidity"
    CONGESTION = "congestion"
    FORECAST_ERROR = "forecast-error"


def _values(given: str | tuple[float, ...]) -> tuple[float, ...]:
    if isinstance(given, tuple):
        return given
    numbers = tuple(float(part) for part in given.split(","))
    if not all(isfinite(number) for number in numbers):
        raise ValueError("values are finite numbers")
    return numbers


def _held(text: str) -> tuple[str, float]:
    """A lever and its value. Raises BadParameter on what is neither."""
    name, sign, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not sign or not isfinite(number):
        raise typer.BadParameter(f"'{text}' is no lever with a value; write --set congestion=0.8.")
    return name.strip().replace("-", "_"), number


def compare(
    ctx: typer.Context,
    names: Designs,
    case: Annotated[str, typer.Option("--case", metavar="NAME", help="Case: small or reference.")] = "small",
    cases: Annotated[int, typer.Option("--cases", min=1, metavar="N", help="As many cases, with seeds 1 to N.")] = 1,
    vary: Annotated[Lever | None, typer.Option("--vary", help="Lever of the case that is varied.")] = None,
    values: Annotated[
        Any, typer.Option("--values", parser=_values, metavar="0,0.5,1", help="What the lever is set to.")
    ] = (),
    held: Annotated[
        list[str] | None, typer.Option("--set", metavar="LEVER=VALUE", help="Another lever, held at one value.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Processes; as many as processors if not given.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="ADDRESS", help="Dask scheduler, tcp://host:port, instead.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where results and the page are kept.")] = Path(
        "comparison"
    ),
    fresh: Annotated[bool, typer.Option("--fresh", help="Make all runs anew, also those that are kept.")] = False,
    as_json: Json = False,
) -> None:
    """Run market designs on the same grid, offers and needs, and set side by side what each costs, leaves broken and
    leaves unused. What was run before is taken from its folder; an interrupted comparison goes on where it was.

    Example: coflex compare smartnet_a smartnet_b smartnet_c --case small --vary liquidity --values 0.25,0.5,1
    """
    if workers is not None and cluster is not None:
        raise typer.BadParameter("Work is done here or on a cluster; give --workers or --cluster.")
    lever = None if vary is None else vary.value.replace("-", "_")
    levers = tuple(_held(text) for text in held or ())
    with application(ctx, as_json) as world:
        order = world.ComparisonOrder(tuple(names), case, cases, lever, values, levers, workers, cluster, out, fresh)
        with screen.progress() as progress:
            answer = world.compare(order, progress)
        if as_json:
            screen.put_json({name: value for name, value in asdict(answer).items() if name != "table"})
        else:
            _show(answer)
        # Who asks for all designs asks for those that the case has what they need.
        troubles = [one for one in answer.troubles if one.status == "failed" or EVERY not in names]
        _summary(answer)
    if troubles:
        raise typer.Exit(EXIT_REFUSED)


def _show(answer: Any) -> None:
    screen.put_line(answer.table)
    screen.put_line(f"Page: {answer.page}")
    screen.put_line(f"Numbers: {answer.results}")


def _summary(answer: Any) -> None:
    """How much was done, and on stderr what came to nothing, by reason."""
    for word, what in (("refused", "cannot be run on their case"), ("failed", "failed")):
        found = [one for one in answer.troubles if one.status == word]
        if not found:
            continue
        print(f"{len(found)} of {answer.runs + len(answer.troubles)} runs {what}:", file=sys.stderr)
        for reason in dict.fromkeys(_reason(one) for one in found):
            print(f"  {_listed(f'{x.design} on {x.case}' for x in found if _reason(x) == reason)}", file=sys.stderr)
            for line in reason:
                print(f"    {line}", file=sys.stderr)


def _reason(trouble: Any) -> tuple[str, ...]:
    """Why a run came to nothing: its findings where it has any, else its message."""
    return tuple(str(finding) for finding in trouble.findings) or (f"{trouble.message} [{trouble.code}]",)


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return "; ".join(found[:_NAMED]) + more
