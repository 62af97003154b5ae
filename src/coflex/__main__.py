"""The command `coflex`, also as `python -m coflex`: it can say its help before anything heavy is imported."""

from __future__ import annotations

from coflex.adapters.cli import main as cli
from coflex.adapters.cli.world import World


def main() -> None:
    """Run the command line."""
    cli.main(application)


def application() -> World:
    """The application, imported when a command first needs it."""
    from coflex import app

    return app


if __name__ == "__main__":
    main()
