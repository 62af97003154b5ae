"""The designs that come with the platform."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

from coflex.domain.errors import CoflexError
from coflex.market.design.document import Design
from coflex.market.design.reading import read_design


def designs() -> tuple[str, ...]:
    """The ids of the designs that come with the platform, sorted."""
    names = (entry.name for entry in _shelf().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def design_text(name: str) -> str:
    """The document of a design that comes with the platform. Raises CoflexError on an unknown id."""
    if name not in designs():
        near = [one for one in designs() if name.replace("-", "_")[:6] in one] or list(designs())
        raise CoflexError(f"There is no design '{name}'.", f"Choose one of: {', '.join(near)}.")
    return _shelf().joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def load_design(name: str) -> Design:
    """A design that comes with the platform. Raises CoflexError on an unknown id, Refused on a faulty document."""
    return read_design(design_text(name), f"{name}.yaml")


def _shelf() -> Traversable:
    return resources.files("coflex.market").joinpath("designs")
