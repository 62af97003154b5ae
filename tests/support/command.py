"""The command line inside the test's own process."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from coflex.__main__ import application
from coflex.adapters.cli.main import coflex as commands


def coflex(*words: object) -> Result:
    """Run `coflex` with these words; nothing it raises by itself leaves it."""
    return CliRunner().invoke(commands, [str(word) for word in words], obj=application, prog_name="coflex")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its place there."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
