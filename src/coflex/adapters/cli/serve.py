"""`coflex serve`: the platform as a service, and the options by which all its commands find its store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import application
from coflex.adapters.cli.world import World

DATA = Path("data")

Data = Annotated[
    Path, typer.Option("--data", metavar="FOLDER", envvar="COFLEX_DATA", help="Where the platform keeps what it knows.")
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        envvar="COFLEX_DATABASE_URL",
        show_envvar=True,
        help="PostgreSQL in the place of a file in the data folder: postgresql://user:password@host/name.",
    ),
]
Progress = Callable[[str], None]


class LogForm(StrEnum):
    """Lines of JSON, or text for people."""

    JSON = "json"
    TEXT = "text"


class Probe(Protocol):
    """What a look at the store found, nothing of it changed."""

    @property
    def kind(self) -> str:
        """ "SQLite" or "PostgreSQL"."""
        ...

    @property
    def version(self) -> str:
        """Of the database, as numbers with dots."""
        ...

    @property
    def shape(self) -> str:
        """The version of the tables, empty where there are none yet."""
        ...

    @property
    def newest_shape(self) -> str:
        """The version that this coflex writes."""
        ...

    @property
    def entries(self) -> int: ...

    @property
    def last_at(self) -> Any:
        """The instant of the last entry, an aware datetime; None where there is none."""
        ...

    @property
    def writer(self) -> str:
        """Who holds the writer's lock, empty where nobody does."""
        ...


class Service(Protocol):
    """The platform as a service. Every answer is a dataclass of figures."""

    @property
    def Settings(self) -> Callable[..., Any]:  # noqa: N802  a class there
        """data, database_url; for `serve` also host, port, tls_cert, tls_key, log_format ("json", "text" or None),
        speed, demo, case, private_webhooks, mqtt, witnesses"""
        ...

    def serve(self, settings: Any, tell: Progress) -> None:
        """Serve until a signal ends it."""
        ...

    def probe(self, settings: Any) -> Probe:
        """Look at the store. Raises CoflexError where it cannot be reached."""
        ...

    def backup(self, settings: Any, to: Path) -> Any: ...
    def restore(self, settings: Any, source: Path, replace: bool) -> Any: ...
    def migrate(self, settings: Any) -> Any: ...
    def verify(self, settings: Any, progress: Progress) -> Any: ...
    def replay(self, settings: Any, progress: Progress) -> Any: ...


class ServingWorld(World, Protocol):
    """An application that can also serve."""

    def service(self) -> Service: ...


@contextmanager
def service(ctx: typer.Context, as_json: bool) -> Iterator[Service]:
    """The platform as a service; whatever it raises is told as for all commands."""
    with application(ctx, as_json) as world:
        yield cast("ServingWorld", world).service()


def serve(
    ctx: typer.Context,
    host: Annotated[
        str, typer.Option(envvar="COFLEX_HOST", help="Address to listen on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, envvar="COFLEX_PORT", help="0: any free one.")] = 8080,
    data: Data = DATA,
    database_url: DatabaseUrl = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate, PEM: speak HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Key of the certificate, PEM.")] = None,
    log_format: Annotated[
        LogForm | None, typer.Option(help="How stderr is written; text on a terminal and JSON elsewhere if not given.")
    ] = None,
    speed: Annotated[int, typer.Option(min=1, help="How many times as fast as ours the sandbox's clock runs.")] = 1,
    demo: Annotated[
        bool, typer.Option("--demo/--no-demo", help="A sandbox to try things in, made at first start.")
    ] = True,
    case: Annotated[Path | None, typer.Option(metavar="CASE", help="Folder of the sandbox's case.")] = None,
    private_webhooks: Annotated[
        bool, typer.Option("--allow-private-webhooks", help="Webhooks may go to this machine and its networks.")
    ] = False,
    mqtt: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="COFLEX_MQTT", help="Devices' broker: mqtt://user:password@host:1883, or mqtts://."
        ),
    ] = None,
    witnesses: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, metavar="FILE", help="Who cosigns measurements: URL and key, a line each."
        ),
    ] = None,
) -> None:
    """Serve the platform to several companies at once, until Ctrl+C or SIGTERM: API, its documents and the screens.

    Example: coflex serve --data /var/lib/coflex --port 8080
    """
    with service(ctx, False) as here:
        settings = here.Settings(
            data=data,
            database_url=database_url,
            host=host,
            port=port,
            tls_cert=tls_cert,
            tls_key=tls_key,
            log_format=None if log_format is None else log_format.value,
            speed=speed,
            demo=demo,
            case=case,
            private_webhooks=private_webhooks,
            mqtt=mqtt,
            witnesses=witnesses,
        )
        here.serve(settings, _tell)


def _tell(line: str) -> None:
    """A line at once, also where stdout is no terminal."""
    print(line, flush=True)


def show(title: str, answer: Any, as_json: bool) -> None:
    """An answer of figures, for people or for machines."""
    if as_json:
        screen.put_json(answer)
    else:
        screen.put_table(title, screen.facts(answer))
