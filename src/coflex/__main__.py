"""The command `coflex`, also as `python -m coflex`: it can say its help before anything heavy is imported."""

from __future__ import annotations

import os

from coflex.adapters.cli import main as cli
from coflex.adapters.cli.world import World


def main() -> None:
    """Run the command line."""
    # Matrices here are small and dense; threads that share one take longer than one thread alone.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    cli.main(application)


def application() -> World:
    """The application, imported when a command first needs it."""
    from coflex import app

    return app


if __name__ == "__main__":
    main()
