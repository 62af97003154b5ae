"""The table of equivalences (REG-08): a passed test of product A qualifies for B where what A asks for includes B.

Attribute by attribute the table says which side is harder. Only the pure case counts: the same units under the same
provider, the same family of services, and the same test set-up. Source: document B, section 6.2 and table 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

import yaml

from coflex.qualification.requirements import Requirements, Service


class Configuration(StrEnum):
    """How the tested group and the one that wants the qualification share units (document B, table 8)."""

    IDENTICAL = "identical"
    CONTAINED = "contained"
    OVERLAPPING = "overlapping"
    DISJOINT = "disjoint"


@dataclass(frozen=True, slots=True)
class Ruling:
    """Whether what was shown in one attribute includes what is wanted, with both values and the sentence."""

    attribute: str
    shown: str
    wanted: str
    included: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Whether a test stands for another: the configuration of the groups, a ruling on every attribute, and why."""

    applies: bool
    configuration: Configuration
    rulings: tuple[Ruling, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class _Attribute:
    """A line of the table. `none`: which end of the scale no value is, "hardest" or "easiest"."""

    name: str
    rule: str
    tested: bool
    none: str = ""


@dataclass(frozen=True)
class Table:
    """The table as it is shipped. `family_of[service]`: number of its family; `because`: the reason of each."""

    attributes: tuple[_Attribute, ...]
    family_of: Mapping[Service, int]
    because: tuple[str, ...]
    configurations: Mapping[Configuration, tuple[bool, str]]

    def rule(self, shown: Requirements, wanted: Requirements) -> tuple[Ruling, ...]:
        """A ruling on every attribute, in the order of the table."""
        return tuple(self._ruling(one, shown, wanted) for one in self.attributes)

    def covers(self, shown: Requirements, wanted: Requirements) -> bool:
        """Whether `shown` includes `wanted` in every attribute: a preorder on requirements."""
        return all(self._included(one, getattr(shown, one.name), getattr(wanted, one.name)) for one in self.attributes)

    def shows(self, shown: Requirements, wanted: Requirements) -> bool:
        """Whether a test of `shown` also shows what a test of `wanted` would: `covers` in the tested attributes."""
        tested = (one for one in self.attributes if one.tested)
        return all(self._included(one, getattr(shown, one.name), getattr(wanted, one.name)) for one in tested)

    def _included(self, attribute: _Attribute, shown: Any, wanted: Any) -> bool:
        if attribute.rule == "family":
            return self.family_of[shown] == self.family_of[wanted]
        if attribute.none:
            absent = (None, ())
            hardest = attribute.none == "hardest"
            if shown in absent or wanted in absent:
                return shown in absent if hardest else wanted in absent
        return _RULES[attribute.rule](shown, wanted)

    def _ruling(self, attribute: _Attribute, shown: Requirements, wanted: Requirements) -> Ruling:
        one, other = getattr(shown, attribute.name), getattr(wanted, attribute.name)
        included = self._included(attribute, one, other)
        text, against = _text(one, attribute), _text(other, attribute)
        if attribute.rule == "family":
            reason = self.because[self.family_of[wanted.service]]
            sentence = f"'{text}' and '{against}' are {'' if included else 'not '}of one family: {reason}."
        else:
            sentence = (
                f"{_SENTENCE[attribute.rule]}: {text} {'includes' if included else 'does not include'} {against}."
            )
        return Ruling(attribute.name, text, against, included, sentence)


def configuration(tested: Iterable[str], wanting: Iterable[str]) -> Configuration:
    """How two groups share units."""
    one, other = set(tested), set(wanting)
    if one == other:
        return Configuration.IDENTICAL
    if not one & other:
        return Configuration.DISJOINT
    return Configuration.CONTAINED if one < other or other < one else Configuration.OVERLAPPING


def equivalence(
    shown: Sequence[Requirements], wanted: Sequence[Requirements], how: Configuration, one_provider: bool = True
) -> Equivalence:
    """Whether the passed tests `shown` (at least one) stand for all tests `wanted` of a group in configuration `how`.

    Each wanted test is held against the shown one that leaves least open.
    """
    there = table()
    allowed, because = there.configurations[how]
    rulings: list[Ruling] = []
    for want in wanted:
        rulings += min((there.rule(show, want) for show in shown), key=lambda of: sum(not one.included for one in of))
    missing = [one.attribute for one in rulings if not one.included]
    if not one_provider:
        sentence = "The groups have two providers; the table is for one."
    elif not allowed:
        sentence = f"The table does not apply: {because}."
    elif missing:
        sentence = f"The tests do not include what is wanted in {', '.join(missing)}; the group has to be tested."
    else:
        sentence = f"The tests include all that is wanted, and {because}."
    return Equivalence(one_provider and allowed and not missing, how, tuple(rulings), sentence)


@cache
def table() -> Table:
    """The table of equivalences that comes with the platform."""
    text = resources.files("coflex.qualification").joinpath("equivalences.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    families = document["families"]
    lines = [
        _Attribute(line["attribute"], line["rule"], line["tested"], line.get("none", ""))
        for line in document["attributes"]
    ]
    unnamed = {one.name for one in fields(Requirements)} - {"product"} - {line.name for line in lines}
    assert not unnamed, f"equivalences.yaml does not rule on {sorted(unnamed)}"
    return Table(
        attributes=tuple(lines),
        family_of={Service(name): i for i, family in enumerate(families) for name in family["services"]},
        because=tuple(family["because"] for family in families),
        configurations={
            Configuration(name): (entry["applies"], entry["because"])
            for name, entry in document["configurations"].items()
        },
    )


def _text(value: Any, attribute: _Attribute) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(one) for one in value) or "all"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    unit = next((unit for ending, unit in _UNITS if attribute.name.endswith(ending)), "")
    return f"{value:g}{unit}" if isinstance(value, int | float) else str(value)


_UNITS = (("_s", " s"), ("_kw", " kW"), ("_percent", " %"), ("_mhz", " mHz"))

_RULES: dict[str, Callable[[Any, Any], bool]] = {
    "equal": lambda shown, wanted: bool(shown == wanted),
    "lower": lambda shown, wanted: bool(shown <= wanted),
    "higher": lambda shown, wanted: bool(shown >= wanted),
    "finer": lambda shown, wanted: bool(wanted % shown == 0),
    "implies": lambda shown, wanted: bool(shown or not wanted),
    "superset": lambda shown, wanted: set(shown) >= set(wanted),
}
_SENTENCE = {
    "equal": "It has to be the same",
    "lower": "The smaller value is harder",
    "higher": "The greater value is harder",
    "finer": "The finer step is harder",
    "implies": "With it is harder than without",
    "superset": "More is harder",
}
