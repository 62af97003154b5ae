"""Laws of the register: the touched part shows what the whole shows, and no sequence of commands breaks a rule."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coflex.domain.errors import CoflexError
from coflex.domain.party import Party, Role
from coflex.domain.product import Product
from coflex.domain.register import check_register
from coflex.domain.unit import ConnectionPoint, Group, Level, Scope, Unit
from coflex.register.consents import Consent
from coflex.register.parties import PartyEntry
from coflex.register.products import ProductEntry
from coflex.register.resources import GroupEntry, Perimeter, PointEntry, UnitEntry, UnitStatus
from coflex.service import rules
from coflex.service.machine import Machine, decode, encode
from coflex.service.reading import records, shown
from coflex.service.replay import fingerprint, replay
from coflex.service.state import State
from coflex.service.verbs.products import ProductForm
from coflex.service.verbs.resource_forms import UnitForm, unit_of
from support.registers import (
    ROLES,
    START,
    TENANT,
    VERBS,
    add_unit,
    group_form,
    point_form,
    populated,
    product_form,
    unit_form,
)

# ---------------------------------------------------------------- the part and the whole

PARTIES = {name: (role,) for name, role in ROLES.items()}
BUSES = ["B1", "B2", "B3", ""]
PERIMETERS = {"B1": "F01", "B2": "F01", "B3": "F02"}


BASE = populated().state


def a_point(name: str, bus: str, operator: str, owner: str) -> ConnectionPoint:
    return ConnectionPoint(name, bus, Level.DISTRIBUTION, 20.0, operator, owner, 44.0, 7.0)


def a_unit(name: str, **changes: Any) -> Unit:
    return unit_of(decode(encode(unit_form(1) | {"id": name} | changes), UnitForm), "sp-1")


def a_product(name: str, scope: str, places: tuple[str, ...] = ()) -> Product:
    form = decode(encode(product_form(name, scope, perimeters=places)), ProductForm)
    return Product(**{one: getattr(form, one) for one in Product.__dataclass_fields__})


points = st.builds(a_point, st.sampled_from(["p1", "p2", "p3"]), st.sampled_from(BUSES),
                   st.sampled_from(["dso", "tso"]), st.sampled_from(["own-1", "brp-1"]))  # fmt: skip
units = st.builds(
    lambda name, point, provider, brp, up: a_unit(
        name, connection_point=point, provider=provider, balance_responsible_party=brp, up_kw=up
    ),
    st.sampled_from(["u1", "u2", "u3", "u4"]), st.sampled_from(["p1", "p2", "p3", "p9"]),
    st.sampled_from(["sp-1", "sp-2"]), st.sampled_from(["brp-1", "brp-2"]), st.sampled_from([100, -1]),
)  # fmt: skip
groups = st.builds(
    Group, st.sampled_from(["g1", "g2", "g3"]), st.sampled_from(["sp-1", "sp-2"]), st.sampled_from(Scope),
    st.sampled_from(["local", "global", "none"]), st.sampled_from(["F01", "F02", ""]),
    st.lists(st.sampled_from(["u1", "u2", "u3", "u4", "u9"]), max_size=3).map(tuple),
    st.sampled_from(["brp-1", "brp-2"]),
)  # fmt: skip
some_roles = st.sampled_from([None, (Role.SERVICE_PROVIDER,), (Role.DSO,), tuple(Role)])


def by_id(of: st.SearchStrategy[Any], least: int = 0, most: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    return st.lists(of, min_size=least, max_size=most).map(lambda found: {one.id: one for one in found})


@st.composite
def drafts(draw: st.DrawFn) -> rules.Draft:
    def gone_or(of: st.SearchStrategy[Any], names: list[str]) -> dict[str, Any]:
        return draw(by_id(of, most=2)) | dict.fromkeys(draw(st.sets(st.sampled_from(names), max_size=1)))

    return rules.Draft(
        parties=draw(st.dictionaries(st.sampled_from(sorted(PARTIES)), some_roles, max_size=1)),
        points=gone_or(points, ["p1", "p2"]),
        units=gone_or(units, ["u1", "u2"]),
        groups=gone_or(groups, ["g1", "g2"]),
        products=draw(st.sampled_from([{}, {"local": a_product("local", "global")},
                                       {"local": a_product("local", "local", ("F02",))}])),
        buses=draw(st.sampled_from([None, {"B1": "F01", "B2": "F02"}])),
    )  # fmt: skip


def filled(points: dict[str, Any], units: dict[str, Any], groups: dict[str, Any]) -> State:
    """A state whose register is these, sound or not."""
    state = State(TENANT)
    for kind, id, one, number in BASE.kinds():
        if kind != "perimeter":
            state.put(kind, id, one, number)
    for name, at in (("F01", ("B1", "B2")), ("F02", ("B3",))):
        state.put("perimeter", name, Perimeter(name, "dso", name, at), 1)
    for id, point in points.items():
        state.put("connection_point", id, PointEntry(id, point), 1)
    for id, unit in units.items():
        state.put("unit", id, UnitEntry(id, unit, UnitStatus.NEW, START, START), 1)
    for id, group in groups.items():
        state.put("group", id, GroupEntry(id, group, UnitStatus.NEW, START, START), 1)
    return state


def merged(there: dict[str, Any], draft: Any) -> list[Any]:
    return [one for one in (there | dict(draft)).values() if one is not None]


@pytest.mark.spec("REG-05")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(by_id(points, 1), by_id(units, 1), by_id(groups, 1), drafts())
def test_the_touched_part_shows_every_breach_that_a_change_brings(
    points: dict[str, Any], units: dict[str, Any], groups: dict[str, Any], draft: rules.Draft
) -> None:
    """The whole check before and after says what a change brings; the part must tell all of it, and nothing that the
    whole does not say."""
    state = filled(points, units, groups)
    products = {one.id: one.product for one in state.all(ProductEntry)}
    parties = {one.id: one.party.roles for one in state.all(PartyEntry)} | dict(draft.parties)
    before = set(rules.whole(state))
    after = set(
        check_register(
            [Party(id, id, roles) for id, roles in parties.items() if roles is not None],
            merged(points, draft.points),
            merged(units, draft.units),
            merged(groups, draft.groups),
            list((products | dict(draft.products)).values()),
            PERIMETERS if draft.buses is None else draft.buses,
        )
    )
    told = set(rules.findings(state, draft))
    assert after - before <= told <= after


# ---------------------------------------------------------------- no sequence breaks a rule

numbers = st.integers(1, 5)
providers = st.sampled_from(["sp-1", "sp-2"])
brps = st.sampled_from(["brp-1", "brp-2"])
members = st.lists(numbers, max_size=3)
changes = st.fixed_dictionaries(
    {},
    optional={
        "up_kw": st.sampled_from([100, 150, -5]),
        "connection_point": numbers.map("p{}".format),
        "balance_responsible_party": brps,
        "owner": st.sampled_from(["own-1", "own-2", "sp-1"]),
        "element": numbers.map("battery {}".format),
    },
)


class Register(RuleBasedStateMachine):
    """Commands as they come; most are refused, and what is taken leaves the register sound."""

    @initialize()
    def begin(self) -> None:
        self.world = populated()
        for number in (1, 2, 3):
            add_unit(self.world, number, balance_responsible_party="brp-1")
        self.world.do("group.register", "sp-1", **group_form("g1", 1, 2))

    def ask(self, verb: str, party: str, subject: str = "", **form: Any) -> None:
        before = fingerprint(self.world.machine)
        count = len(self.world.journal.entries())
        try:
            self.world.do(verb, party, subject, **form)
        except CoflexError:
            assert fingerprint(self.world.machine) == before, "a refused command changed something"
            assert len(self.world.journal.entries()) == count
        self.world.later(minutes=5)

    @rule(number=numbers, at=numbers, provider=providers, brp=brps, with_point=st.booleans())
    def register_unit(self, number: int, at: int, provider: str, brp: str, with_point: bool) -> None:
        form = unit_form(number, connection_point=f"p{at}", balance_responsible_party=brp)
        self.ask("unit.register", provider, **form, point=point_form(at) if with_point else None)

    @rule(number=numbers, provider=providers, change=changes)
    def change_unit(self, number: int, provider: str, change: dict[str, Any]) -> None:
        self.ask("unit.change", provider, f"u{number}", **change)

    @rule(number=numbers, party=st.sampled_from(["sp-1", "sp-2", "own-1", "dso"]),
          step=st.sampled_from(["activate", "deactivate", "terminate"]))  # fmt: skip
    def step_unit(self, number: int, party: str, step: str) -> None:
        self.ask(f"unit.{step}", party, f"u{number}")

    @rule(number=numbers, provider=providers, brp=brps, consented=st.booleans())
    def switch(self, number: int, provider: str, brp: str, consented: bool) -> None:
        if consented:
            ends = (self.world.clock.at + timedelta(days=1)).isoformat()
            self.ask("consent.give", "own-1", unit=f"u{number}", provider=provider, scope=["offer"], ends=ends)
        self.ask("unit.switch", provider, f"u{number}", balance_responsible_party=brp)

    @rule(number=numbers, party=st.sampled_from(["dso", "sp-1"]), bus=numbers.map("B{}".format),
          end=st.booleans())  # fmt: skip
    def change_point(self, number: int, party: str, bus: str, end: bool) -> None:
        if end:
            self.ask("connection_point.end", party, f"p{number}")
        else:
            self.ask("connection_point.change", party, f"p{number}", bus=bus)

    @rule(number=numbers, provider=providers, units=members, scope=st.sampled_from(["local", "global"]),
          perimeter=st.sampled_from(["F01", "F02"]), brp=brps)  # fmt: skip
    def register_group(
        self, number: int, provider: str, units: list[int], scope: str, perimeter: str, brp: str
    ) -> None:
        form = group_form(f"g{number}", *units, scope=scope, product=scope, perimeter=perimeter,
                          balance_responsible_party=brp)  # fmt: skip
        self.ask("group.register", provider, **form)

    @rule(number=numbers, provider=providers, units=members)
    def change_group(self, number: int, provider: str, units: list[int]) -> None:
        self.ask("group.change", provider, f"g{number}", units=[f"u{one}" for one in units])

    @rule(number=numbers, provider=providers)
    def terminate_group(self, number: int, provider: str) -> None:
        self.ask("group.terminate", provider, f"g{number}")

    @rule(party=st.sampled_from(sorted(ROLES)), end=st.booleans(),
          roles=st.sampled_from([["observer"], ["service_provider", "asset_owner"]]))  # fmt: skip
    def change_party(self, party: str, roles: list[str], end: bool) -> None:
        if end:
            self.ask("party.end", "mo", party, reason="r")
        else:
            self.ask("party.change", "mo", party, roles=roles)

    @rule(buses=st.sets(numbers.map("B{}".format), min_size=1, max_size=3), name=st.sampled_from(["F01", "F02"]))
    def set_perimeter(self, buses: set[str], name: str) -> None:
        self.ask("perimeter.set", "dso", name, name=name, buses=sorted(buses))

    @rule(numbers=st.lists(numbers, min_size=1, max_size=3), provider=providers)
    def import_units(self, numbers: list[int], provider: str) -> None:
        rows = [unit_form(one) | {k: v for k, v in point_form(one).items() if k not in ("id", "owner")}
                for one in numbers]  # fmt: skip
        self.ask("units.import", provider, rows=rows)

    @invariant()
    def no_rule_is_broken(self) -> None:
        if hasattr(self, "world"):
            assert rules.whole(self.world.state) == ()

    @invariant()
    def lists_are_what_one_record_after_the_other_shows(self) -> None:
        """Lists are kept from read to read and found through indexes; single records are not."""
        if not hasattr(self, "world"):
            return
        state = self.world.state
        for party in ("sp-1", "sp-2", "own-1", "dso", "brp-1"):
            who = self.world.who(party)
            for kind in (UnitEntry, PointEntry, GroupEntry, Consent, PartyEntry):
                plain = [one for one in state.all(kind) if shown(state, who, one)]
                assert [one for one, _ in records(state, who, kind)] == plain

    def teardown(self) -> None:
        if hasattr(self, "world"):
            fresh = Machine(VERBS, {TENANT: State(TENANT)})
            assert list(replay(self.world.journal.entries(0, 10**6), fresh)) == []


Register.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestRegister = pytest.mark.spec("REG-05", "REG-11")(Register.TestCase)
