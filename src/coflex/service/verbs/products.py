"""The catalogue: products are put up, changed and withdrawn by those who procure them (REG-06).

A price cap is changed by two persons. A product keeps its scope and kind; another one is another product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

from msgspec import UNSET, UnsetType

from coflex.domain.errors import Conflict, Finding, refuse
from coflex.domain.party import Role
from coflex.domain.product import PricingRule, Product, QuantityKind
from coflex.domain.quantity import Direction
from coflex.domain.unit import Scope
from coflex.register.fields import differences
from coflex.register.products import ProductEntry
from coflex.register.settlement import SettlementTerms
from coflex.service import rules
from coflex.service.machine import CREATED, Context, Outcome, Verb, encode
from coflex.service.ports import Note
from coflex.service.reading import record, require, require_new, shown
from coflex.service.settling import terms_as_sold
from coflex.service.state import State
from coflex.service.verbs.resource_forms import Form, Nothing, absent, changes, id_faults, is_operator

MOST_PRICE = Decimal(1_000_000)
MOST_KW, MOST_S = 10**9, 366 * 86_400
MOST_PERIMETERS = 10_000
# Lists of an availability window, with the numbers that may stand in them.
_WINDOWS = {"months": range(1, 13), "weekdays": range(1, 8), "hours": range(24)}


class ProductForm(Form, frozen=True):
    """A product; see `domain.product.Product`. `procured_by`: system operators, the caller if left out."""

    id: str
    scope: Scope
    kind: QuantityKind
    directions: tuple[Direction, ...]
    resolution_s: int
    tick_kw: int
    min_quantity_kw: int
    full_activation_time_s: int
    price_cap_eur_mwh: Decimal
    divisible: bool
    symmetric: bool
    tolerance: Decimal
    penalty_share: Decimal
    perimeters: tuple[str, ...] = ()
    months: tuple[int, ...] = ()
    weekdays: tuple[int, ...] = ()
    hours: tuple[int, ...] = ()
    max_up_kw: int | None = None
    max_down_kw: int | None = None
    min_duration_s: int = 0
    max_duration_s: int | None = None
    recovery_time_s: int = 0
    deactivation_time_s: int | None = None
    measurement_interval_s: int = 900
    accuracy_percent: Decimal = Decimal(1)
    pricing: PricingRule = PricingRule.PAY_AS_BID
    test_share: Decimal = Decimal("0.9")
    test_within_s: int | None = None
    test_interval_s: int = 60
    test_accuracy_percent: Decimal = Decimal(1)
    procured_by: tuple[str, ...] = ()


class ProductChange(Form, frozen=True):
    """What changes of a product; a field that is left out stays."""

    directions: tuple[Direction, ...] | UnsetType = UNSET
    resolution_s: int | UnsetType = UNSET
    tick_kw: int | UnsetType = UNSET
    min_quantity_kw: int | UnsetType = UNSET
    full_activation_time_s: int | UnsetType = UNSET
    divisible: bool | UnsetType = UNSET
    symmetric: bool | UnsetType = UNSET
    tolerance: Decimal | UnsetType = UNSET
    penalty_share: Decimal | UnsetType = UNSET
    perimeters: tuple[str, ...] | UnsetType = UNSET
    months: tuple[int, ...] | UnsetType = UNSET
    weekdays: tuple[int, ...] | UnsetType = UNSET
    hours: tuple[int, ...] | UnsetType = UNSET
    max_up_kw: int | UnsetType | None = UNSET
    max_down_kw: int | UnsetType | None = UNSET
    min_duration_s: int | UnsetType = UNSET
    max_duration_s: int | UnsetType | None = UNSET
    recovery_time_s: int | UnsetType = UNSET
    deactivation_time_s: int | UnsetType | None = UNSET
    measurement_interval_s: int | UnsetType = UNSET
    accuracy_percent: Decimal | UnsetType = UNSET
    pricing: PricingRule | UnsetType = UNSET
    test_share: Decimal | UnsetType = UNSET
    test_within_s: int | UnsetType | None = UNSET
    test_interval_s: int | UnsetType = UNSET
    test_accuracy_percent: Decimal | UnsetType = UNSET
    procured_by: tuple[str, ...] | UnsetType = UNSET


class PriceCap(Form, frozen=True):
    """No offer above it, none below its negative, in EUR/MWh."""

    price_cap_eur_mwh: Decimal


# ---------------------------------------------------------------- the verbs


def _register(state: State, context: Context, form: ProductForm) -> Outcome:
    """Put a product up. Raises Conflict, Forbidden, Refused with every fault."""
    product = Product(**{one.name: getattr(form, one.name) for one in fields(Product)})
    entry = ProductEntry(product.id, product, form.procured_by or _caller(context))
    absent(state, ProductEntry, "product", entry.id)
    refuse("The product", [*id_faults("", entry.id), *_faults(product), *_procured(state, entry)])
    require_new(state, context, entry, ("product.id",))
    note = Note("product.registered", entry.id, ("*",))
    return Outcome(shown(state, context, entry), ((ProductEntry, entry.id, entry),), (note,), CREATED)


def _caller(context: Context) -> tuple[str, ...]:
    return (context.party,) if {Role.DSO, Role.TSO} & context.roles else ()


def _change(state: State, context: Context, form: ProductChange) -> Outcome:
    """Change a product. Raises NotFound, Forbidden, Conflict, Refused with every fault, also of its groups."""
    before = record(state, context, ProductEntry, context.subject)
    given = changes(form)
    require(state, context, before, (name if name == "procured_by" else f"product.{name}" for name in given))
    _offered(before)
    procured_by = given.pop("procured_by", before.procured_by)
    after = replace(before, product=replace(before.product, **given), procured_by=procured_by)
    return _changed(state, context, before, after)


def _cap(state: State, context: Context, form: PriceCap) -> Outcome:
    """Set the price cap. Raises NotFound, Forbidden, Conflict, Refused."""
    before = record(state, context, ProductEntry, context.subject)
    require(state, context, before, ("product.price_cap_eur_mwh",))
    _offered(before)
    after = replace(before, product=replace(before.product, price_cap_eur_mwh=form.price_cap_eur_mwh))
    return _changed(state, context, before, after)


def _changed(state: State, context: Context, before: ProductEntry, after: ProductEntry) -> Outcome:
    findings = [*_faults(after.product), *_procured(state, after)]
    refuse("The product", [*findings, *rules.findings(state, rules.Draft(products={after.id: after.product}))])
    names = sorted(path.removeprefix("product.") for path in differences(before, after))
    note = Note("product.changed", after.id, ("*",), encode({"fields": names}))
    made = Outcome(shown(state, context, after), ((ProductEntry, after.id, after),), (note,))
    return with_terms(made, terms_as_sold(state, context.now, before.product, after.product))


def with_terms(made: Outcome, terms: SettlementTerms | None) -> Outcome:
    """What a verb decided, with the terms that follow from it."""
    if terms is None:
        return made
    last = terms.terms[-1]
    note = Note("settlement_terms.set", terms.id, ("*",), encode({"from_day": last.from_day, "rule": last.rule}))
    return replace(made, records=(*made.records, (SettlementTerms, terms.id, terms)), notes=(*made.notes, note))


def _withdraw(state: State, context: Context, form: Nothing) -> Outcome:
    """Nothing new is made for a product from now on. Raises NotFound, Forbidden, Conflict."""
    before = record(state, context, ProductEntry, context.subject)
    require(state, context, before, ("withdrawn",))
    _offered(before)
    after = replace(before, withdrawn=context.now)
    return Outcome(
        shown(state, context, after), ((ProductEntry, after.id, after),), (Note("product.withdrawn", after.id, ("*",)),)
    )


def _offered(entry: ProductEntry) -> None:
    if entry.withdrawn is not None:
        raise Conflict(f"The product '{entry.id}' is withdrawn.", "Register another one.")


# ---------------------------------------------------------------- what a product is held to


def _procured(state: State, entry: ProductEntry) -> Iterator[Finding]:
    names = entry.procured_by
    if not names or len(set(names)) != len(names):
        yield Finding("procured_by", "procured_by", "Name the system operators that procure it, each once.")
    for name in names:
        if not is_operator(state, name):
            yield Finding("procured_by", "unknown_operator", f"'{name}' is no system operator here; correct it.")


def _faults(product: Product) -> Iterator[Finding]:
    """Every fault of a product in itself, by its field."""
    yield from _numbers(product)
    yield from _shares(product)
    yield from _windows(product)
    if not product.directions or len(set(product.directions)) != len(product.directions):
        yield Finding("directions", "directions", "Name up, down or both, each once.")
    elif product.symmetric and len(product.directions) == 1:
        yield Finding("symmetric", "symmetric", "A symmetric product has both directions; add the other.")
    if product.tick_kw > 0 and product.min_quantity_kw % product.tick_kw:
        yield Finding("min_quantity_kw", "off_tick", f"It is no multiple of {product.tick_kw} kW; choose one.")
    for name in ("max_up_kw", "max_down_kw"):
        most = getattr(product, name)
        if most is not None and most < product.min_quantity_kw:
            yield Finding(name, "quantity_range", "It is below the least quantity; order them.")
    if product.max_duration_s is not None and product.max_duration_s < product.min_duration_s:
        yield Finding("max_duration_s", "duration_range", "It is shorter than the shortest duration; order them.")
    if product.test_time_s < product.full_activation_time_s and product.test_within_s is not None:
        message = "A test cannot ask for more than the full activation time allows; give it as long at least."
        yield Finding("test_within_s", "test_time", message)


def _numbers(product: Product) -> Iterator[Finding]:
    from_one = {"tick_kw", "resolution_s", "min_quantity_kw", "measurement_interval_s", "test_interval_s",
                "full_activation_time_s"}  # fmt: skip
    for one in fields(Product):
        number: Any = getattr(product, one.name)
        if one.name.endswith(("_kw", "_s")) and number is not None:
            least, most = int(one.name in from_one), MOST_S if one.name.endswith("_s") else MOST_KW
            if not least <= number <= most:
                yield Finding(one.name, "range", f"{number} is not between {least} and {most}; correct it.")


def _shares(product: Product) -> Iterator[Finding]:
    bounds = {
        "price_cap_eur_mwh": (Decimal(0), MOST_PRICE),
        "tolerance": (Decimal(0), Decimal(1)),
        "penalty_share": (Decimal(0), Decimal(100)),
        "test_share": (Decimal("0.01"), Decimal(1)),
        "accuracy_percent": (Decimal("0.01"), Decimal(100)),
        "test_accuracy_percent": (Decimal("0.01"), Decimal(100)),
    }
    for name, (least, most) in bounds.items():
        number = getattr(product, name)
        if not number.is_finite() or not least <= number <= most:
            yield Finding(name, "range", f"{number} is not between {least} and {most}; correct it.")
    if product.tolerance == 1:
        yield Finding("tolerance", "range", "Whoever gives nothing would be inside it; choose one below 1.")


def _windows(product: Product) -> Iterator[Finding]:
    for name, allowed in _WINDOWS.items():
        numbers = getattr(product, name)
        if len(set(numbers)) != len(numbers) or not set(numbers) <= set(allowed):
            yield Finding(
                name, "window", f"Give numbers from {allowed[0]} to {allowed[-1]}, each once, or none for all."
            )
    places = product.perimeters
    if len(places) > MOST_PERIMETERS or len(set(places)) != len(places) or not all(map(str.isprintable, places)):
        yield Finding("perimeters", "perimeters", f"Name at most {MOST_PERIMETERS} perimeters, each once on one line.")


_BUYING = frozenset({Role.DSO, Role.TSO, Role.MARKET_OPERATOR})
VERBS = (
    Verb("product.register", ProductForm, _register, _BUYING),
    Verb("product.change", ProductChange, _change, _BUYING, ProductEntry),
    Verb("product.set_price_cap", PriceCap, _cap, _BUYING, ProductEntry, two_persons=True),
    Verb("product.withdraw", Nothing, _withdraw, _BUYING, ProductEntry),
)
