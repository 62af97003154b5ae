"""The rules of the register: who may offer which unit with whom."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from coflex.domain.party import Party, Role
from coflex.domain.product import Product, QuantityKind
from coflex.domain.quantity import Direction
from coflex.domain.register import check_register
from coflex.domain.unit import ConnectionPoint, Group, Level, Scope, Technology, Unit

PARTIES = (
    Party("tso", "TSO", (Role.TSO,)),
    Party("dso", "DSO", (Role.DSO,)),
    Party("sp-1", "One", (Role.SERVICE_PROVIDER, Role.ASSET_OWNER)),
    Party("sp-2", "Two", (Role.SERVICE_PROVIDER,)),
    Party("brp-1", "Balance one", (Role.BALANCE_RESPONSIBLE_PARTY,)),
    Party("brp-2", "Balance two", (Role.BALANCE_RESPONSIBLE_PARTY,)),
)
PERIMETERS = {"B1": "F01", "B2": "F01", "B3": "F02"}


def point(number: int) -> ConnectionPoint:
    return ConnectionPoint(f"p{number}", f"B{number}", Level.DISTRIBUTION, 10.0, "dso", "sp-1", 53.0, 11.0)


def unit(number: int) -> Unit:
    return Unit(
        id=f"u{number}",
        category="storage",
        technology=Technology.BATTERY,
        connection_point=f"p{number}",
        element=f"battery {number}",
        provider="sp-1",
        owner="sp-1",
        balance_responsible_party="brp-1",
        up_kw=20,
        down_kw=30,
        tan_phi=0.0,
        preparation_period_s=5,
        ramping_period_s=25,
        full_activation_time_s=30,
        deactivation_period_s=30,
        min_quantity_kw=1,
        max_quantity_kw=30,
        min_duration_s=900,
        max_duration_s=3600,
        recovery_time_s=0,
    )


def product(id: str, scope: Scope) -> Product:
    return Product(
        id,
        scope,
        QuantityKind.ACTIVE_ENERGY,
        (Direction.UP, Direction.DOWN),
        900,
        1,
        1,
        900,
        Decimal(1000),
        True,
        False,
        Decimal("0.1"),
        Decimal("0.5"),
    )


LOCAL = Group("lg", "sp-1", Scope.LOCAL, "local", "F01", ("u1", "u2"), "brp-1")
GLOBAL = Group("gg", "sp-1", Scope.GLOBAL, "global", "F01", ("u1", "u2"), "brp-1")
SOUND = {
    "parties": PARTIES,
    "points": (point(1), point(2), point(3)),
    "units": (unit(1), unit(2), unit(3)),
    "groups": (LOCAL, GLOBAL),
    "products": (product("local", Scope.LOCAL), product("global", Scope.GLOBAL)),
    "perimeter_of_bus": PERIMETERS,
}


def found(**changes: object) -> list[tuple[str, str]]:
    return [(finding.place, finding.code) for finding in check_register(**(SOUND | changes))]  # type: ignore[arg-type]


@pytest.mark.spec("REG-05")
def test_a_unit_may_be_in_one_local_and_one_global_group() -> None:
    assert found() == []


@pytest.mark.spec("REG-05")
def test_a_unit_in_two_groups_of_a_scope_is_found() -> None:
    assert found(groups=(LOCAL, replace(LOCAL, id="lg2", units=("u2",)))) == [("unit u2", "two_groups_of_a_scope")]


@pytest.mark.spec("REG-05")
def test_both_groups_of_a_unit_have_the_same_provider() -> None:
    foreign = replace(GLOBAL, provider="sp-2", units=("u1",))
    assert found(groups=(LOCAL, foreign)) == [("group gg", "foreign_unit"), ("unit u1", "two_providers")]


@pytest.mark.spec("REG-05")
def test_a_group_has_one_balance_responsible_party() -> None:
    units = (unit(1), replace(unit(2), balance_responsible_party="brp-2"), unit(3))
    assert found(units=units, groups=(LOCAL,)) == [("group lg", "two_balance_responsible_parties")]


@pytest.mark.spec("REG-05")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"product": "global"}, "wrong_scope"),
        ({"product": "none"}, "unknown_product"),
        ({"units": ("u1", "u9")}, "unknown_unit"),
        ({"units": ("u1", "u3")}, "outside_perimeter"),
        ({"units": ("u1", "u1")}, "unit_repeated"),
        ({"units": ()}, "empty_group"),
        ({"perimeter": ""}, "outside_perimeter"),
    ],
)
def test_a_group_that_breaks_a_rule_is_found(change: dict[str, object], code: str) -> None:
    assert {code for _, code in found(groups=(replace(LOCAL, **change),))} == {code}  # type: ignore[arg-type]


@pytest.mark.spec("REG-02")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"up_kw": -1}, "negative"),
        ({"recovery_time_s": -1}, "negative"),
        ({"energy_down_kwh": -1}, "negative"),
        ({"min_quantity_kw": 31}, "quantity_range"),
        ({"max_quantity_kw": 31}, "quantity_range"),
        ({"min_duration_s": 3601}, "duration_range"),
        ({"full_activation_time_s": 29}, "activation_time"),
        ({"connection_point": "p9"}, "unknown_point"),
        ({"owner": "nobody"}, "unknown_party"),
        ({"owner": "sp-2"}, "wrong_role"),
        ({"balance_responsible_party": "tso"}, "wrong_role"),
    ],
)
def test_a_unit_that_cannot_be_is_found(change: dict[str, object], code: str) -> None:
    units = (replace(unit(1), **change), unit(2))  # type: ignore[arg-type]
    assert found(units=units, groups=()) == [("unit u1", code)]


def test_the_operator_of_a_point_has_the_role_of_its_level() -> None:
    assert found(points=(replace(point(1), level=Level.TRANSMISSION), point(2), point(3))) == [
        ("connection point p1", "wrong_role")
    ]


def test_every_breach_is_reported_at_once_and_in_any_order_of_input() -> None:
    broken = {
        "units": (replace(unit(1), owner="nobody"), unit(2), unit(3)),
        "groups": (replace(LOCAL, units=("u1", "u9")), replace(GLOBAL, product="local")),
    }
    backwards = {name: tuple(reversed(rows)) for name, rows in broken.items()}
    assert found(**broken) == [("group gg", "wrong_scope"), ("group lg", "unknown_unit"), ("unit u1", "unknown_party")]
    assert found(**backwards) == found(**broken)
