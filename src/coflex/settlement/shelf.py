"""The settlement rules that come with the platform."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

from coflex.domain.errors import CoflexError
from coflex.settlement.document import Rule
from coflex.settlement.reading import read_rule


def rules() -> tuple[str, ...]:
    """The ids of the rules that come with the platform, sorted."""
    names = (entry.name for entry in _shelf().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def rule_text(name: str) -> str:
    """The document of a rule that comes with the platform. Raises CoflexError on an unknown id."""
    if name not in rules():
        raise CoflexError(f"There is no settlement rule '{name}'.", f"Choose one of: {', '.join(rules())}.")
    return _shelf().joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def load_rule(name: str) -> Rule:
    """A rule that comes with the platform. Raises CoflexError on an unknown id, Refused on a faulty document."""
    return read_rule(rule_text(name), f"{name}.yaml")


def _shelf() -> Traversable:
    return resources.files("coflex.settlement").joinpath("rules_documents")
