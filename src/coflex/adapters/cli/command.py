"""What all commands share: how they reach the application, the options they have in common, their exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import Annotated

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.world import Load, World
from coflex.domain.errors import CoflexError

EXIT_REFUSED, EXIT_UNEXPECTED = 1, 70

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")]


@contextmanager
def application(ctx: typer.Context, as_json: bool) -> Iterator[World]:
    """The application; whatever it raises is told in one place, and ends the command with its exit code."""
    load: Load = ctx.obj
    try:
        yield load()
    except Exception as error:
        if isinstance(error, BrokenPipeError) or ctx.find_root().params["debug"]:
            raise
        if isinstance(error, OSError):
            error = screen.of_system(error)
        told = error if isinstance(error, CoflexError) else screen.unexpected(error)
        screen.put_fault(told, as_json)
        raise typer.Exit(EXIT_REFUSED if told is error else EXIT_UNEXPECTED) from None


def instant_of(given: str | datetime) -> datetime:
    """An instant as it is typed, with its offset."""
    made = given if isinstance(given, datetime) else datetime.fromisoformat(given)
    if made.tzinfo is None:
        raise typer.BadParameter("an instant has its offset, as in 2016-07-05T18:00+02:00 or 2016-07-05T16:00Z")
    return made


def day_of(given: str | date) -> date:
    """A date as it is typed."""
    return given if isinstance(given, date) else date.fromisoformat(given)
