"""The command `coflex`, also as `python -m coflex`: it can say its help before anything heavy is imported."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any, cast

from coflex.adapters.cli import main as cli
from coflex.adapters.cli.world import World


def main() -> None:
    """Run the command line."""
    # Matrices here are small and dense; threads that share one take longer than one thread alone.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    cli.main(application)


class Application:
    """The application: each half of it is imported when a command first needs it."""

    def service(self) -> ModuleType:
        """The platform as a service."""
        from coflex import serve

        return serve

    def server(self) -> ModuleType:
        """The HTTP server, for programs that serve something else than the platform."""
        from coflex.adapters.web import server

        return server

    def chain(self) -> ModuleType:
        """The contract on a chain that checkpoints are anchored in."""
        from coflex.adapters.anchor import ethereum

        return ethereum

    def ingest(self) -> ModuleType:
        """The ingest of measurements."""
        from coflex import ingest

        return ingest

    def warehouse(self) -> ModuleType:
        """Tables of a whole city, on an engine."""
        from coflex.adapters.warehouse import city

        return city

    def device(self) -> ModuleType:
        """Light nodes."""
        from coflex import device

        return device

    def __getattr__(self, name: str) -> Any:
        from coflex import app

        return getattr(app, name)


def application() -> World:
    return cast("World", Application())


if __name__ == "__main__":
    main()
