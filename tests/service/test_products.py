"""The catalogue: everything that table 7 of document B names, changed by those who buy, price caps by two (REG-06)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coflex.adapters.exchange.tables.records import read_records, write_records
from coflex.domain.errors import Conflict, Forbidden, NotFound, Refused
from coflex.domain.product import Product
from coflex.domain.unit import Scope
from coflex.register.access import ClientScope, User
from coflex.register.market import Proposal
from coflex.register.products import ProductEntry
from coflex.service.machine import decode, encode
from coflex.service.verbs.products import ProductForm, _faults
from coflex.simulation.cases import _products
from support.registers import START, World, add_unit, group_form, populated, product_form


def codes(caught: pytest.ExceptionInfo[Refused]) -> set[str]:
    return {f"{finding.place} {finding.code}" for finding in caught.value.findings}


@pytest.fixture
def world() -> World:
    return populated()


FULL: dict[str, Any] = product_form(
    "evening", "local", perimeters=["F01"], months=[6, 7, 8], weekdays=[1, 2, 3, 4, 5], hours=[18, 19, 20],
    max_up_kw=5000, max_down_kw=4000, min_duration_s=900, max_duration_s=7200, recovery_time_s=3600,
    deactivation_time_s=300, measurement_interval_s=60, accuracy_percent="0.5", pricing="pay_as_clear",
    test_share="0.95", test_within_s=1200, test_interval_s=10, test_accuracy_percent="0.5",
)  # fmt: skip


@pytest.mark.spec("REG-06")
def test_a_product_keeps_every_attribute(world: World) -> None:
    reply = world.do("product.register", "dso", **FULL)
    assert reply["product"] == FULL
    assert reply["procured_by"] == ["dso"] and reply["withdrawn"] is None
    assert world.notes[0].audience == ("*",)


@pytest.mark.spec("REG-06", "REG-07")
def test_what_a_test_asks_for_follows_from_the_scope_unless_the_product_says(world: World) -> None:
    """Spec REG-07: TSO 90 % within 15 minutes, DSO 90 % within 25; metering class 1 % at one minute."""
    tests = {one.id: one.product for one in world.state.all(ProductEntry)}
    assert (tests["local"].test_time_s, tests["global"].test_time_s) == (25 * 60, 15 * 60)
    for product in tests.values():
        assert float(product.test_share) == 0.9
        assert (product.test_interval_s, float(product.test_accuracy_percent)) == (60, 1.0)
    world.do("product.register", "dso", **FULL)
    assert world.state.get(ProductEntry, "evening").product.test_time_s == 1200


@pytest.mark.spec("REG-06")
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"directions": []}, "directions directions"),
        ({"directions": ["up"], "symmetric": True}, "symmetric symmetric"),
        ({"tick_kw": 0}, "tick_kw range"),
        ({"tick_kw": 10, "min_quantity_kw": 15}, "min_quantity_kw off_tick"),
        ({"min_quantity_kw": 100, "max_up_kw": 50}, "max_up_kw quantity_range"),
        ({"min_duration_s": 1800, "max_duration_s": 900}, "max_duration_s duration_range"),
        ({"months": [0, 13]}, "months window"),
        ({"weekdays": [7, 7]}, "weekdays window"),
        ({"hours": [24]}, "hours window"),
        ({"price_cap_eur_mwh": "-1"}, "price_cap_eur_mwh range"),
        ({"tolerance": "1.5"}, "tolerance range"),
        ({"tolerance": "1"}, "tolerance range"),
        ({"test_share": "0"}, "test_share range"),
        ({"accuracy_percent": "NaN"}, "accuracy_percent range"),
        ({"test_within_s": 60}, "test_within_s test_time"),
        ({"perimeters": ["F01", "F01"]}, "perimeters perimeters"),
        ({"procured_by": ["sp-1"]}, "procured_by unknown_operator"),
        ({"resolution_s": -900}, "resolution_s range"),
        ({"id": "a/b"}, "id id"),
    ],
)
def test_each_fault_of_a_product_has_its_place(world: World, change: dict[str, Any], fault: str) -> None:
    with pytest.raises(Refused) as caught:
        world.do("product.register", "mo", **(product_form("x", "local") | {"procured_by": ["dso"]} | change))
    assert fault in codes(caught)


@pytest.mark.spec("REG-06")
def test_several_faults_are_told_together() -> None:
    world = populated()
    with pytest.raises(Refused) as caught:
        world.do("product.register", "dso", **product_form("x", "local", tick_kw=0, hours=[99], tolerance="7"))
    assert codes(caught) == {"tick_kw range", "hours window", "tolerance range"}


@pytest.mark.spec("REG-06", "REG-11")
def test_only_those_who_procure_a_product_and_the_market_operator_change_it(world: World) -> None:
    for party in ("tso", "sp-1"):
        with pytest.raises(Forbidden):
            world.do("product.change", party, "local", hours=[1])
    world.do("product.change", "dso", "local", hours=[1, 2])
    world.do("product.change", "mo", "local", procured_by=["dso", "tso"])
    world.do("product.change", "tso", "local", hours=[])
    with pytest.raises(Forbidden):
        world.do("product.register", "sp-1", **product_form("x", "local"))
    with pytest.raises(Forbidden):
        world.do("product.register", "tso", **product_form("x", "local", procured_by=["dso"]))
    with pytest.raises(NotFound):
        world.do("product.change", "dso", "none", hours=[1])


@pytest.mark.spec("REG-06")
def test_a_change_that_tears_a_group_is_refused_with_the_group(world: World) -> None:
    add_unit(world, 1)
    world.do("group.register", "sp-1", **group_form("lg", 1))
    with pytest.raises(Refused) as caught:
        world.do("product.change", "dso", "local", perimeters=["F02"])
    assert codes(caught) == {"group lg outside_location"}
    world.do("product.change", "dso", "local", perimeters=["F01"])


@pytest.mark.spec("REG-06")
def test_a_price_cap_waits_for_a_second_person(world: World) -> None:
    with pytest.raises(Refused, match="The request"):
        world.do("product.change", "dso", "local", price_cap_eur_mwh="500")
    world.state.put("user", "user", User("user", "dso", (ClientScope.WRITE,), "", "", START, START), 1)
    reply = world.do("product.set_price_cap", "dso", "local", price_cap_eur_mwh="500")
    assert reply["status"] == "waiting"
    assert world.state.count(Proposal) == 1
    assert world.state.get(ProductEntry, "local").product.price_cap_eur_mwh == 1000
    world.do("product.set_price_cap", "mo", "local", actor="operator", price_cap_eur_mwh="500")
    assert world.state.get(ProductEntry, "local").product.price_cap_eur_mwh == 500


def test_a_withdrawn_product_stays_as_it_is(world: World) -> None:
    assert world.do("product.withdraw", "dso", "local")["withdrawn"] == "2026-07-01T12:00:00Z"
    for verb, form in (("change", {"hours": [1]}), ("withdraw", {})):
        with pytest.raises(Conflict):
            world.do(f"product.{verb}", "dso", "local", **form)
    with pytest.raises(Conflict):
        world.do("product.register", "dso", **product_form("local", "local"))


def test_the_products_of_a_drawn_case_have_no_fault() -> None:
    for product in _products():
        assert isinstance(product, Product) and product.scope in Scope
        assert list(_faults(product)) == []


@pytest.mark.spec("REG-06")
def test_a_table_of_products_without_the_newer_columns_reads_with_their_defaults(tmp_path: Path) -> None:
    table = tmp_path / "products.csv"
    full = Product(**{name: getattr(decode(encode(FULL), ProductForm), name) for name in Product.__dataclass_fields__})
    plain = Product(*(getattr(full, name) for name in list(Product.__dataclass_fields__)[:13]))
    write_records(table, Product, [plain])
    header = table.read_text().splitlines()[0].split(",")
    assert header == list(Product.__dataclass_fields__)[:13]
    assert read_records(table, Product) == ((plain,), ())
    write_records(table, Product, [plain, full])
    assert read_records(table, Product) == ((plain, full), ())
