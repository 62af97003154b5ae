"""The settlement rules that come with the platform, and which of them, or of one's own, settles a product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable

from coflex.documents import parse
from coflex.domain.errors import CoflexError, Finding, Refused, refuse
from coflex.domain.product import Product
from coflex.settlement.document import ProductRules, Rule
from coflex.settlement.reading import read_rule

PRODUCTS = "products"
"""The name of the document that says which rule settles a product; no rule has it for its id."""


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


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Rules by id, and which of them settles a product."""

    rules: Mapping[str, Rule]
    chosen: ProductRules

    def id_of(self, product: Product) -> str:
        """The id of the rule that settles a product."""
        return self.chosen.products.get(product.id, self.chosen.scopes[product.scope])

    def of(self, product: Product) -> Rule | None:
        """The rule that settles a product; None where there is no rule of the id that is said for it."""
        return self.rules.get(self.id_of(product))


def rulebook(own: Mapping[str, str] | None = None) -> Rulebook:
    """The rules of the platform and those of one's own, which come before them.

    own: texts of documents by the names of their files without ".yaml": rules by their ids, and `products` where one's
    own document says which rule settles a product. Raises Refused with every fault of all of them.
    """
    given = dict(own or {})
    text = given.pop(PRODUCTS, None)
    findings: list[Finding] = []
    mine: dict[str, Rule] = {}
    chosen = _platform().chosen
    try:
        mine = read_rules(given)
    except Refused as refused:
        findings += refused.findings
    try:
        chosen = chosen if text is None else _read_products(text, f"{PRODUCTS}.yaml")
    except Refused as refused:
        findings += refused.findings
    refuse("Settlement rules", findings)
    return Rulebook({**_platform().rules, **mine}, chosen)


def read_rules(texts: Mapping[str, str]) -> dict[str, Rule]:
    """Rules by id, of texts by the names of their files without ".yaml". Raises Refused with the faults of all."""
    found: dict[str, Rule] = {}
    findings: list[Finding] = []
    for name, text in texts.items():
        try:
            found[name] = read_rule(text, f"{name}.yaml")
        except Refused as refused:
            findings += refused.findings
            continue
        if found[name].id != name:
            said = found[name].id
            findings.append(Finding(f"{name}.yaml", "wrong_id", f"The document says '{said}'; name the file like it."))
    refuse("Settlement rules", findings)
    return found


@lru_cache(maxsize=1)
def _platform() -> Rulebook:
    text = resources.files("coflex.settlement").joinpath(f"{PRODUCTS}.yaml").read_text(encoding="utf-8")
    return Rulebook({name: load_rule(name) for name in rules()}, _read_products(text, f"{PRODUCTS}.yaml"))


def _read_products(text: str, place: str) -> ProductRules:
    document = parse(text, place, "Here belongs a mapping that begins with its version.")
    chosen, found = document.model(ProductRules)
    refuse(place, found)
    assert chosen is not None  # or there were findings
    refuse(place, [document.finding(*fault) for fault in chosen.faults()])
    return chosen


def _shelf() -> Traversable:
    return resources.files("coflex.settlement").joinpath("rules_documents")
