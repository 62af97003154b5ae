"""`coflex store ...`: copies of the store, its upgrade, and the proofs that nothing in it was changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import EXIT_REFUSED, Json
from coflex.adapters.cli.serve import DATA, Data, DatabaseUrl, service, show

stores = typer.Typer(help="The service's store: copies, upgrades and proofs.", no_args_is_help=True)


@stores.command(short_help="Copy the store, also while it serves.")
def backup(
    ctx: typer.Context,
    to: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; it must not be there yet.")],
    data: Data = DATA,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Write a copy of the whole store, as it is at one instant, into one file: also while the platform serves.

    Example: coflex store backup --data /var/lib/coflex backups/monday.coflex
    """
    with service(ctx, as_json) as here:
        show("store backup", here.backup(here.Settings(data=data, database_url=database_url), to), as_json)


@stores.command(short_help="Bring a copy back.")
def restore(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE", help="A file of backup.")],
    data: Data = DATA,
    database_url: DatabaseUrl = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of a store that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a copy back, whole or not at all, and check its chain: while the platform does not serve.

    Example: coflex store restore backups/monday.coflex --data /var/lib/coflex --replace
    """
    with service(ctx, as_json) as here:
        settings = here.Settings(data=data, database_url=database_url)
        show("store restore", here.restore(settings, source, replace), as_json)


@stores.command(short_help="Bring the tables to this coflex.")
def migrate(ctx: typer.Context, data: Data = DATA, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Bring the tables of a store to the version that this coflex writes: after an upgrade, before it serves.

    Example: coflex store migrate --data /var/lib/coflex
    """
    with service(ctx, as_json) as here:
        show("store migrate", here.migrate(here.Settings(data=data, database_url=database_url)), as_json)


@stores.command(short_help="Prove that no entry was changed.")
def verify(ctx: typer.Context, data: Data = DATA, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Compute the digest of every entry anew and hold it against the chain; ends with 1 where one differs.

    Example: coflex store verify --data /var/lib/coflex
    """
    with service(ctx, as_json) as here, screen.progress() as progress:
        answer = here.verify(here.Settings(data=data, database_url=database_url), progress)
    _proved("store verify", answer, as_json)


@stores.command(short_help="Decide every entry anew and compare.")
def replay(ctx: typer.Context, data: Data = DATA, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Decide every command of the journal anew in an empty platform and hold each answer against what is written, to
    the byte; ends with 1 where one differs.

    Example: coflex store replay --data /var/lib/coflex
    """
    with service(ctx, as_json) as here, screen.progress() as progress:
        answer = here.replay(here.Settings(data=data, database_url=database_url), progress)
    _proved("store replay", answer, as_json)


def _proved(title: str, answer: object, as_json: bool) -> None:
    """Show a proof; a failed one (it has `differences`) ends the command with an error."""
    show(title, answer, as_json)
    if getattr(answer, "differences", ()):
        raise typer.Exit(EXIT_REFUSED)
