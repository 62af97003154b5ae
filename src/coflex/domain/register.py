"""The rules of the register: which units may offer together, for whom, and where.

Source: document B, section 6.2, tables 6 and 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from coflex.domain.errors import Finding
from coflex.domain.party import Party, Role
from coflex.domain.product import Product
from coflex.domain.unit import ConnectionPoint, Group, Level, Scope, Unit

_OPERATOR = {Level.DISTRIBUTION: Role.DSO, Level.TRANSMISSION: Role.TSO}


@dataclass(frozen=True)
class Register:
    """What the rules look up, by id. `roles`: of every party. `groups_of`: the groups that a unit is in.

    `perimeter_of_bus`: perimeter of each bus of the modelled grid, empty for those of the substation. Rules on a
    bus that it does not hold are left out: whoever knows the buses reports it.
    """

    roles: Mapping[str, tuple[Role, ...]]
    points: Mapping[str, ConnectionPoint]
    units: Mapping[str, Unit]
    products: Mapping[str, Product]
    perimeter_of_bus: Mapping[str, str]
    groups_of: Mapping[str, Sequence[Group]]

    def party(self, place: str, what: str, party: str, role: Role) -> Iterator[Finding]:
        """A finding unless the party is known and has the role."""
        if party not in self.roles:
            yield Finding(place, "unknown_party", f"The {what} '{party}' is no party; add it or correct the name.")
        elif role not in self.roles[party]:
            yield Finding(
                place, "wrong_role", f"The {what} '{party}' has not the role {role}; give it the role or name another."
            )

    def perimeter(self, unit: Unit) -> str | None:
        """Perimeter where the unit is connected; empty outside the modelled grid; None when it is not known."""
        point = self.points.get(unit.connection_point)
        if point is None:
            return None
        return self.perimeter_of_bus.get(point.bus) if point.bus else ""


def check_register(
    parties: Sequence[Party],
    points: Sequence[ConnectionPoint],
    units: Sequence[Unit],
    groups: Sequence[Group],
    products: Sequence[Product],
    perimeter_of_bus: Mapping[str, str],
) -> tuple[Finding, ...]:
    """Every breach of the register's rules, sorted; empty when there is none.

    A unit is in at most one local and one global group, both of the unit's provider; the units of a group have
    the group's provider and balance responsible party and are connected inside its perimeter; a group has the
    scope of its product and lies where the product is asked for. Owners, providers and operators are parties with
    that role. Powers, energies and times are not negative, and the parts of an activation fit into it.

    `perimeter_of_bus`: see `Register`.
    """
    groups_of: dict[str, list[Group]] = {}
    for group in groups:
        for name in set(group.units):
            groups_of.setdefault(name, []).append(group)
    register = Register(
        roles={party.id: party.roles for party in parties},
        points={point.id: point for point in points},
        units={unit.id: unit for unit in units},
        products={product.id: product for product in products},
        perimeter_of_bus=perimeter_of_bus,
        groups_of=groups_of,
    )
    return check_part(register, points, units, groups)


def check_part(
    register: Register,
    points: Iterable[ConnectionPoint] = (),
    units: Iterable[Unit] = (),
    groups: Iterable[Group] = (),
) -> tuple[Finding, ...]:
    """Every breach of the rules at some points, units and groups of a register, and at the units of those groups;
    sorted. The cost is that of the part, not of the register."""
    units, groups = tuple(units), tuple(groups)
    findings: list[Finding] = []
    for point in points:
        findings.extend(_point(register, point))
    for unit in units:
        findings.extend(_unit(register, unit))
    for group in groups:
        findings.extend(_group(register, group))
    members = {unit.id for unit in units}.union(*(group.units for group in groups))
    findings.extend(_memberships(register, members))
    return tuple(sorted(set(findings)))


def _point(register: Register, point: ConnectionPoint) -> Iterator[Finding]:
    place = f"connection point {point.id}"
    yield from register.party(place, "system operator", point.system_operator, _OPERATOR[point.level])
    yield from register.party(place, "owner", point.owner, Role.ASSET_OWNER)


def _unit(register: Register, unit: Unit) -> Iterator[Finding]:
    place = f"unit {unit.id}"
    yield from register.party(place, "provider", unit.provider, Role.SERVICE_PROVIDER)
    yield from register.party(place, "owner", unit.owner, Role.ASSET_OWNER)
    yield from register.party(
        place, "balance responsible party", unit.balance_responsible_party, Role.BALANCE_RESPONSIBLE_PARTY
    )
    if unit.connection_point not in register.points:
        yield Finding(
            place, "unknown_point", f"There is no connection point '{unit.connection_point}'; add it or correct it."
        )
    yield from _ranges(place, unit)


def _ranges(place: str, unit: Unit) -> Iterator[Finding]:
    negative = sorted(
        name
        for name, value in (
            ("up_kw", unit.up_kw),
            ("down_kw", unit.down_kw),
            ("energy_up_kwh", unit.energy_up_kwh or 0),
            ("energy_down_kwh", unit.energy_down_kwh or 0),
            ("min_quantity_kw", unit.min_quantity_kw),
            ("preparation_period_s", unit.preparation_period_s),
            ("ramping_period_s", unit.ramping_period_s),
            ("deactivation_period_s", unit.deactivation_period_s),
            ("min_duration_s", unit.min_duration_s),
            ("recovery_time_s", unit.recovery_time_s),
        )
        if value < 0
    )
    for name in negative:
        yield Finding(place, "negative", f"'{name}' is negative; the direction stands in the name, so give its size.")
    if not unit.min_quantity_kw <= unit.max_quantity_kw <= max(unit.up_kw, unit.down_kw):
        yield Finding(
            place,
            "quantity_range",
            f"Quantities from {unit.min_quantity_kw} to {unit.max_quantity_kw} kW do not fit a power of "
            f"{max(unit.up_kw, unit.down_kw)} kW; order them as minimum, maximum, power.",
        )
    if unit.min_duration_s > unit.max_duration_s:
        yield Finding(place, "duration_range", "The shortest duration is longer than the longest; exchange them.")
    if unit.activation_period_s > unit.full_activation_time_s:
        yield Finding(
            place,
            "activation_time",
            f"Preparation and ramp take {unit.activation_period_s} s, more than the full activation time of "
            f"{unit.full_activation_time_s} s; correct one of them.",
        )


def _group(register: Register, group: Group) -> Iterator[Finding]:
    place = f"group {group.id}"
    yield from register.party(place, "provider", group.provider, Role.SERVICE_PROVIDER)
    yield from register.party(
        place, "balance responsible party", group.balance_responsible_party, Role.BALANCE_RESPONSIBLE_PARTY
    )
    product = register.products.get(group.product)
    if product is None:
        yield Finding(place, "unknown_product", f"There is no product '{group.product}'; add it or correct it.")
    elif product.scope is not group.scope:
        yield Finding(
            place,
            "wrong_scope",
            f"A {group.scope} group cannot offer the {product.scope} product '{product.id}'; choose one of its scope.",
        )
    elif product.perimeters and group.perimeter not in product.perimeters:
        yield Finding(
            place,
            "outside_location",
            f"The product '{product.id}' is for {', '.join(product.perimeters)}, the group is of '{group.perimeter}'; "
            "choose a product of its perimeter.",
        )
    if not group.units:
        yield Finding(place, "empty_group", "The group has no unit; add one or remove the group.")
    for name in _repeated(group.units):
        yield Finding(place, "unit_repeated", f"The unit '{name}' stands twice in the group; remove one.")
    for name in sorted(set(group.units)):
        yield from _member(register, place, group, name)


def _member(register: Register, place: str, group: Group, name: str) -> Iterator[Finding]:
    unit = register.units.get(name)
    if unit is None:
        yield Finding(place, "unknown_unit", f"There is no unit '{name}'; register it or remove it from the group.")
        return
    if unit.provider != group.provider:
        yield Finding(
            place,
            "foreign_unit",
            f"The unit '{name}' has the provider '{unit.provider}', the group '{group.provider}'; move the unit.",
        )
    if unit.balance_responsible_party != group.balance_responsible_party:
        yield Finding(
            place,
            "two_balance_responsible_parties",
            f"The unit '{name}' has the balance responsible party '{unit.balance_responsible_party}', the group "
            f"'{group.balance_responsible_party}'; a group has one.",
        )
    perimeter = register.perimeter(unit)
    if perimeter is not None and perimeter != group.perimeter:
        yield Finding(
            place,
            "outside_perimeter",
            f"The unit '{name}' is connected in perimeter '{perimeter}', the group is of '{group.perimeter}'; "
            "move the unit to a group of its perimeter.",
        )


def _memberships(register: Register, names: Iterable[str]) -> Iterator[Finding]:
    """At most one group of each scope for a unit, and one provider over both."""
    for name in names:
        groups = register.groups_of.get(name, ())
        for scope in Scope:
            ids = sorted(group.id for group in groups if group.scope is scope)
            if len(ids) > 1:
                yield Finding(
                    f"unit {name}",
                    "two_groups_of_a_scope",
                    f"The unit is in {len(ids)} {scope} groups ({', '.join(ids)}); leave it in one.",
                )
        providers = sorted({group.provider for group in groups})
        if len(providers) > 1:
            yield Finding(
                f"unit {name}",
                "two_providers",
                f"The groups of the unit have the providers {', '.join(providers)}; one provider offers a unit.",
            )


def _repeated(names: Iterable[str]) -> list[str]:
    ordered = sorted(names)
    return sorted({name for name, following in pairwise(ordered) if name == following})
