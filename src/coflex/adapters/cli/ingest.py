"""`coflex ingest`: take signed measurements of a city, certify them, and keep them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

import typer

from coflex.adapters.cli.command import application
from coflex.adapters.cli.serve import LogForm
from coflex.adapters.cli.world import World

DATA = Path("data/measurements")


class Ingest(Protocol):
    """The ingest as a program."""

    @property
    def Settings(self) -> Callable[..., Any]:  # noqa: N802  a class there
        """data, points, origin, host, port, tls_cert, tls_key, senders, mqtt, nats, witnesses, log_format"""
        ...

    def ingest(self, settings: Any, tell: Callable[[str], None]) -> None:
        """Take measurements until a signal ends it."""
        ...


class IngestingWorld(World, Protocol):
    """An application that can also ingest."""

    def ingest(self) -> Ingest: ...


def ingest(
    ctx: typer.Context,
    points: Annotated[
        Path,
        typer.Option("--points", exists=True, dir_okay=False, metavar="FILE", help="Table of registered keys."),
    ],
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Where log and tables are kept.")] = DATA,
    origin: Annotated[
        str, typer.Option(metavar="NAME", help="The log's name: coflex/<tenant>/<log>.")
    ] = "coflex/city/measurements",
    host: Annotated[
        str, typer.Option(envvar="COFLEX_HOST", help="Address to listen on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free one.")] = 8090,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate, PEM: speak HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Key of the certificate, PEM.")] = None,
    senders: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, metavar="FILE", help="Who may send: SHA-256 of a token, owner."),
    ] = None,
    mqtt: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="COFLEX_MQTT", help="Broker: mqtt://user:password@host:1883, or mqtts://."),
    ] = None,
    nats: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="COFLEX_NATS", help="NATS with JetStream: nats://user:password@host:4222."),
    ] = None,
    witnesses: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, metavar="FILE", help="Who cosigns the log: URL and key, a line each."
        ),
    ] = None,
    log_format: Annotated[
        LogForm | None, typer.Option(help="How stderr is written; text on a terminal and JSON elsewhere if not given.")
    ] = None,
) -> None:
    """Take signed measurements by HTTP and MQTT, certify them in a log, and keep them, until Ctrl+C or SIGTERM.

    Example: coflex ingest --points points.csv --data /var/lib/coflex/measurements --origin coflex/rome/measurements
    """
    with application(ctx, False) as world:
        here = cast("IngestingWorld", world).ingest()
        settings = here.Settings(
            data=data,
            points=points,
            origin=origin,
            host=host,
            port=port,
            tls_cert=tls_cert,
            tls_key=tls_key,
            senders=senders,
            mqtt=mqtt,
            nats=nats,
            witnesses=witnesses,
            log_format=None if log_format is None else log_format.value,
        )
        here.ingest(settings, _tell)


def _tell(line: str) -> None:
    """A line at once, also where stdout is no terminal."""
    print(line, flush=True)
