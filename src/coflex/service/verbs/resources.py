"""Perimeters, connection points, units and groups: registered at one place, changed and ended (REG-02, REG-03, REG-05).

Every command is checked against the rules of the register before it is taken, at the cost of what it touches, and is
refused with every fault. A unit that enters is made known to every system operator whose grid it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar, cast

from coflex.domain.errors import Conflict, Finding, Forbidden, NotFound, refuse
from coflex.domain.party import Role
from coflex.domain.unit import Group, Unit
from coflex.register.consents import Availability, Consent, ConsentScope, covered
from coflex.register.devices import Device
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.register.products import ProductEntry
from coflex.register.records import Record
from coflex.register.resources import (
    BEFORE,
    MATERIAL,
    MATERIAL_OF_POINT,
    GroupEntry,
    Perimeter,
    PointEntry,
    UnitEntry,
    UnitStatus,
)
from coflex.service import leaving, rules
from coflex.service.field import ended_with
from coflex.service.index import index
from coflex.service.machine import CREATED, DONE, Context, Outcome, Verb, encode
from coflex.service.ports import Note
from coflex.service.reading import record, require, require_new, shown
from coflex.service.relations import concerned
from coflex.service.state import State
from coflex.service.verbs import prequalification
from coflex.service.verbs.resource_forms import (
    TEXT_LENGTH,
    GroupChange,
    GroupForm,
    Nothing,
    PerimeterForm,
    PointChange,
    PointForm,
    Switch,
    UnitChange,
    UnitForm,
    absent,
    audience,
    changes,
    element_faults,
    entry_faults,
    forwarded,
    hidden,
    id_faults,
    is_operator,
    knows,
    point_differs,
    point_of,
    texts,
    unit_faults,
    unit_of,
)
from coflex.service.verbs.units_import import VERBS as IMPORT

MOST_UNITS_IN_A_GROUP = 10_000
MOST_BUSES = 100_000
_INSTANT = timedelta(microseconds=1)
Writes = list[tuple[type[Record], str, Record | None]]
E = TypeVar("E", UnitEntry, GroupEntry)


# ---------------------------------------------------------------- perimeters


def _set_perimeter(state: State, context: Context, form: PerimeterForm) -> Outcome:
    """Say which buses are a perimeter, anew or for the first time.

    Raises Forbidden, NotFound, Refused with every group that would lie in two.
    """
    before = state.find(Perimeter, context.subject)
    if before is not None:
        require(state, context, before, ("buses",))
    after = Perimeter(context.subject, form.system_operator or context.party, form.name, form.buses)
    require_new(state, context, after, ("buses",))
    findings = [*id_faults("", after.id), *texts("", after, "name"), *_buses_sound(state, after)]
    buses = {bus: name for bus, name in rules.perimeter_of_bus(state).items() if bus not in _buses(before)}
    findings += rules.findings(state, rules.Draft(buses=buses | dict.fromkeys(after.buses, after.name)))
    refuse("The perimeter", findings)
    note = Note("perimeter.changed", after.id, ("*",))
    return Outcome(
        shown(state, context, after), ((Perimeter, after.id, after),), (note,), CREATED if before is None else DONE
    )


def _buses(perimeter: Perimeter | None) -> frozenset[str]:
    return frozenset(perimeter.buses) if perimeter is not None else frozenset()


def _buses_sound(state: State, after: Perimeter) -> Iterator[Finding]:
    if not is_operator(state, after.system_operator):
        yield Finding("system_operator", "unknown_operator", "It is no system operator here; correct it.")
    if not 0 < len(after.buses) <= MOST_BUSES or len(set(after.buses)) != len(after.buses):
        yield Finding("buses", "buses", f"A perimeter has 1 to {MOST_BUSES} buses, each once; correct the list.")
    if any(not 0 < len(bus) <= TEXT_LENGTH or not bus.isprintable() for bus in after.buses):
        yield Finding("buses", "text", f"A bus has a name of 1 to {TEXT_LENGTH} characters on one line; correct it.")
    mine = set(after.buses)
    for other in state.all(Perimeter):
        shared = sorted(mine.intersection(other.buses)) if other.id != after.id else ()
        if shared:
            message = f"The bus '{shared[0]}' is in the perimeter '{other.id}' already; a bus is in one."
            yield Finding("buses", "bus_taken", message)


def _remove_perimeter(state: State, context: Context, form: Nothing) -> Outcome:
    """Take a perimeter away; its buses are in none from then on. Raises NotFound, Forbidden."""
    before = record(state, context, Perimeter, context.subject)
    require(state, context, before, ("buses",))
    note = Note("perimeter.removed", before.id, ("*",))
    return Outcome({"id": before.id}, ((Perimeter, before.id, None),), (note,))


# ---------------------------------------------------------------- connection points


def _register_point(state: State, context: Context, form: PointForm) -> Outcome:
    """Register a connection point. Raises Conflict, Forbidden, Refused with every fault."""
    entry = PointEntry(form.id, point_of(form), form.impacted, context.party)
    by_operator = {Role.DSO, Role.TSO} & context.roles and Role.SERVICE_PROVIDER not in context.roles
    if by_operator and form.system_operator != context.party and Role.REGISTER_OPERATOR not in context.roles:
        raise Forbidden("A system operator registers points of its own grid.", "Name yourself as system operator.")
    absent(state, PointEntry, "connection point", form.id)
    findings = [*id_faults("", form.id), *entry_faults(state, "", entry)]
    findings += rules.findings(state, rules.Draft(points={form.id: entry.point}))
    refuse("The connection point", findings)
    return Outcome(
        shown(state, context, entry),
        ((PointEntry, entry.id, entry),),
        (_point_note(state, "registered", entry),),
        CREATED,
    )


def _change_point(state: State, context: Context, form: PointChange) -> Outcome:
    """Change where and whose a connection point is. Raises NotFound, Forbidden, Conflict, Refused."""
    before = record(state, context, PointEntry, context.subject)
    given = changes(form)
    require(state, context, before, (name if name == "impacted" else f"point.{name}" for name in given))
    if before.ended is not None:
        raise Conflict(f"The connection point '{before.id}' has ended.", "Register another one.")
    impacted = given.pop("impacted", before.impacted)
    after = replace(before, point=replace(before.point, **given), impacted=impacted)
    findings = [*entry_faults(state, "", after)]
    findings += rules.findings(state, rules.Draft(points={after.id: after.point}))
    refuse("The connection point", findings)
    writes: Writes = [(PointEntry, after.id, after)]
    notes = [_point_note(state, "changed", after)]
    units = rules.units_at(state, after.id)
    if any(getattr(before.point, name) != getattr(after.point, name) for name in MATERIAL_OF_POINT):
        units = tuple(replace(unit, changed_materially=context.now) for unit in units)
        writes += [(UnitEntry, unit.id, unit) for unit in units]
        writes += _stirred(state, context, units)
        asked = prequalification.begin(state, [(unit, after) for unit in units], context.now, "The place changed.")
    else:
        asked = prequalification.follow(state, [(unit, after) for unit in units], context.now)
    writes += asked[0]
    notes += asked[1]
    if set(after.operators) - set(before.operators):
        notes += [forwarded(unit.id, (unit,), after) for unit in units]
    return Outcome(shown(state, context, after), tuple(writes), tuple(notes))


def _end_point(state: State, context: Context, form: Nothing) -> Outcome:
    """A connection point is gone. Raises NotFound, Forbidden, Conflict while a unit is there."""
    before = record(state, context, PointEntry, context.subject)
    require(state, context, before, ("ended",))
    units = rules.units_at(state, before.id)
    if before.ended is not None or units:
        what = "has ended already" if before.ended is not None else f"has the unit '{units[0].id}'"
        raise Conflict(f"The connection point '{before.id}' {what}.", "Terminate its units first.")
    after = replace(before, ended=context.now)
    return Outcome(
        shown(state, context, after), ((PointEntry, after.id, after),), (_point_note(state, "ended", after),)
    )


def _point_note(state: State, what: str, entry: PointEntry) -> Note:
    return Note(f"connection_point.{what}", entry.id, audience(state, entry))


# ---------------------------------------------------------------- units


def _register_unit(state: State, context: Context, form: UnitForm) -> Outcome:
    """Register a unit, with its connection point where that is new. Raises Conflict, Forbidden, Refused."""
    unit = unit_of(form, context.party)
    entry = UnitEntry(unit.id, unit, UnitStatus.NEW, context.now, context.now)
    require_new(state, context, entry, ("unit.id", "unit.provider"))
    absent(state, UnitEntry, "unit", unit.id)
    point, findings = _point_given(state, context, form)
    findings += [*id_faults("", unit.id), *unit_faults("", unit), *element_faults(state, (unit,), context.now)]
    drafted = {point.id: point.point} if point is not None else {}
    brought = form.point is not None and form.point.id == unit.connection_point
    shut = frozenset() if brought else hidden(state, context, unit.connection_point)
    findings += rules.findings(state, rules.Draft(points=drafted, units={unit.id: unit}, hidden=shut))
    refuse("The unit", findings)
    at = point or state.get(PointEntry, unit.connection_point)
    asked, told = prequalification.begin(state, [(entry, at)], context.now)
    writes: Writes = [(UnitEntry, unit.id, entry), *asked]
    if point is not None:
        writes.insert(0, (PointEntry, point.id, point))
    note = Note("unit.registered", unit.id, audience(state, entry, *at.operators))
    return Outcome(
        shown(state, context, entry), tuple(writes), (note, forwarded(unit.id, (entry,), at), *told), CREATED
    )


def _point_given(state: State, context: Context, form: UnitForm) -> tuple[PointEntry | None, list[Finding]]:
    """The new connection point of a form; None where it brings none, or one that is there just so.

    Who gives all of a point as it is learns nothing by it; anything else tells of a point to those alone who know it.
    """
    given = form.point
    if given is None:
        return None, []
    entry = PointEntry(given.id, point_of(given), given.impacted, context.party)
    findings = [*id_faults("point.", given.id), *entry_faults(state, "point.", entry)]
    if given.id != form.connection_point:
        message = f"The unit is at '{form.connection_point}', the point is '{given.id}'; give them one id."
        findings.append(Finding("point.id", "other_point", message))
    there = state.find(PointEntry, given.id)
    if there is None:
        return entry, findings
    if (there.point, there.impacted) != (entry.point, entry.impacted):
        findings.append(point_differs(state, context, "point", there))
    return None, findings


def _change_unit(state: State, context: Context, form: UnitChange) -> Outcome:
    """Change a unit. A material change makes its qualifications lapse, and those of its groups.

    Raises NotFound, Forbidden, Conflict, Refused with every fault.
    """
    before = record(state, context, UnitEntry, context.subject)
    given = changes(form)
    require(state, context, before, (f"unit.{name}" for name in given))
    _alive(before, "unit")
    unit = replace(before.unit, **given)
    differs = {name for name in given if getattr(before.unit, name) != getattr(unit, name)}
    if "element" in differs:
        _unsold(state, context, before, "Change its element then.")
    findings = [*unit_faults("", unit), *element_faults(state, (unit,), context.now)]
    shut = hidden(state, context, unit.connection_point)
    findings += rules.findings(state, rules.Draft(units={unit.id: unit}, hidden=shut))
    refuse("The unit", findings)
    material = bool(differs & MATERIAL)
    after = replace(before, unit=unit, changed_materially=context.now if material else before.changed_materially)
    writes: Writes = [(UnitEntry, unit.id, after)]
    writes += _stirred(state, context, (after,)) if material else ()
    if "owner" in differs:
        writes += [(Device, one.id, one) for one in ended_with(state, unit.id, context.now, "The unit changed owner.")]
    if "owner" in differs and state.find(Availability, unit.id) is not None:
        writes.append((Availability, unit.id, None))
    body = encode({"fields": sorted(differs), "material": material})
    notes = [Note("unit.changed", unit.id, audience(state, after, *concerned(state, before)), body)]
    at = state.get(PointEntry, unit.connection_point)
    if "connection_point" in differs:
        notes.append(forwarded(unit.id, (after,), at))
    if material:
        asked, told = prequalification.begin(state, [(after, at)], context.now, "The unit was changed materially.")
        writes += asked
        notes += told
    return Outcome(shown(state, context, after), tuple(writes), tuple(notes))


def _unsold(state: State, context: Context, entry: UnitEntry, remedy: str) -> None:
    """Raises Conflict while the ledger holds something of a unit that is still to be delivered, or the result of a gate
    may yet bring that about."""
    settling = leaving.settling(state, entry.id)
    if settling:
        raise Conflict(f"The session {settling} may still buy the unit '{entry.id}'; wait for its result.", remedy)
    until = rules.held_until(state, entry.id, context.now)
    if until is not None:
        raise Conflict(f"What was sold of the unit '{entry.id}' is delivered until {until.isoformat()}.", remedy)


def _stirred(state: State, context: Context, units: Iterable[UnitEntry]) -> list[tuple[type[Record], str, Record]]:
    """Groups of units that changed materially have changed so themselves."""
    groups = {group.id: group for unit in units for group in rules.groups_of(state, unit.id)}
    return [(GroupEntry, id, replace(groups[id], changed_materially=context.now)) for id in sorted(groups)]


def _alive(entry: UnitEntry | GroupEntry, what: str) -> None:
    if not entry.live:
        raise Conflict(f"The {what} '{entry.id}' is terminated.", "Register another one.")


def _activate_unit(state: State, context: Context, form: Nothing) -> Outcome:
    """A unit may be offered. Raises NotFound, Forbidden, Conflict, Refused without the owner's consent."""
    entry = _into(state, context, UnitEntry, "unit", UnitStatus.ACTIVE)
    unit = entry.unit
    findings = []
    if not _consented(state, context, unit, unit.provider):
        message = f"The owner's consent to '{unit.provider}' is not in force; the owner gives it first."
        findings.append(Finding(f"unit {unit.id}", "no_consent", message))
    for what, party in (("provider", unit.provider), ("balance responsible party", unit.balance_responsible_party)):
        known = state.find(PartyEntry, party)
        if known is None or known.status is not PartyStatus.APPROVED:
            message = f"The {what} '{party}' is not approved now; wait, or name another."
            findings.append(Finding(f"unit {unit.id}", "party_not_approved", message))
    refuse("The activation of the unit", findings)
    note = Note("unit.activated", unit.id, audience(state, entry))
    return Outcome(shown(state, context, entry), ((UnitEntry, entry.id, entry),), (note,))


def _consented(state: State, context: Context, unit: Unit, provider: str) -> bool:
    """Whether the owner allows the provider to offer the unit, now."""
    given = index(state, Consent, "unit", lambda one: (one.unit,)).at(unit.id)
    until = context.now + _INSTANT
    return covered(given, unit.owner, unit.id, provider, ConsentScope.OFFER, context.now, until)


def _deactivate_unit(state: State, context: Context, form: Nothing) -> Outcome:
    """A unit is not offered for the time being. Raises NotFound, Forbidden, Conflict."""
    entry = _into(state, context, UnitEntry, "unit", UnitStatus.INACTIVE)
    note = Note("unit.deactivated", entry.id, audience(state, entry))
    return Outcome(shown(state, context, entry), ((UnitEntry, entry.id, entry),), (note,))


def _terminate_unit(state: State, context: Context, form: Nothing) -> Outcome:
    """A unit is gone, out of its groups too. What was sold of it is owed, and its element taken, until it is over.

    Raises NotFound, Forbidden, Conflict.
    """
    entry = _into(state, context, UnitEntry, "unit", UnitStatus.TERMINATED)
    writes, notes = _left(state, context, entry.id)
    writes = [(UnitEntry, entry.id, entry), *writes, *prequalification.end(state, entry.id)]
    writes += [(Device, one.id, one) for one in ended_with(state, entry.id, context.now, "The unit is terminated.")]
    if state.find(Availability, entry.id) is not None:
        writes.append((Availability, entry.id, None))
    note = Note("unit.terminated", entry.id, audience(state, entry))
    return Outcome(shown(state, context, entry), tuple(writes), (note, *notes))


def _left(state: State, context: Context, unit: str) -> tuple[Writes, list[Note]]:
    """The groups of a unit without it; a group of no unit is terminated."""
    writes: Writes = []
    notes = []
    for entry in rules.groups_of(state, unit):
        rest = tuple(name for name in entry.group.units if name != unit)
        after = replace(entry, group=replace(entry.group, units=rest), changed_materially=context.now)
        if not rest:
            after = replace(after, status=UnitStatus.TERMINATED, status_since=context.now)
        writes.append((GroupEntry, entry.id, after))
        notes.append(Note("group.changed" if rest else "group.terminated", entry.id, audience(state, entry)))
    return writes, notes


def _switch_unit(state: State, context: Context, form: Switch) -> Outcome:
    """A unit goes to the provider that asks for it, with its owner's consent. It leaves its groups and the books of
    open sessions, and is inactive until the new provider activates it. Whoever sold it delivers it: it goes when
    nothing of it is held any more, and no gate has settled that it may be bought.

    Raises NotFound also where the owner has not consented, Forbidden, Conflict also while it is held or may be bought,
    or an order uses it as a backup; Refused.
    """
    before, provider = state.find(UnitEntry, context.subject), form.provider or context.party
    if provider != context.party and Role.REGISTER_OPERATOR not in context.roles:
        raise Forbidden("A provider takes over units for itself.", "Leave the provider out.")
    if before is None or not before.live or not _consented(state, context, before.unit, provider):
        raise NotFound(
            f"There is no unit '{context.subject}' whose owner consents to '{provider}'.", "Ask the owner for consent."
        )
    if before.unit.provider == provider:
        raise Conflict(f"'{provider}' is the provider of '{before.id}' already.", "Change the unit instead.")
    _unsold(state, context, before, "Take it over then; the owner ends its consent to the other provider.")
    unit = replace(before.unit, provider=provider, balance_responsible_party=form.balance_responsible_party)
    writes, notes = _left(state, context, unit.id)
    drafted = {id: cast("GroupEntry", group) for _, id, group in writes}
    groups = {id: one.group if one.live else None for id, one in drafted.items()}
    refuse("The switch", rules.findings(state, rules.Draft(units={unit.id: unit}, groups=groups)))
    after = replace(before, unit=unit)
    if before.status is UnitStatus.ACTIVE:
        after = replace(after, status=UnitStatus.INACTIVE, status_since=context.now)
    both = audience(state, after, *concerned(state, before))
    note = Note("unit.switched", unit.id, both, encode({"from": before.unit.provider, "to": provider}))
    at = state.get(PointEntry, unit.connection_point)
    asked, told = prequalification.begin(state, [(after, at)], context.now, "The unit went to another provider.")
    freed, said = leaving.release(state, unit.id, context.now)
    reply = shown(state, context, after)
    gone, heard, put_back = leaving.take_out(state, unit.id)
    return Outcome(
        reply,
        ((UnitEntry, unit.id, after), *writes, *asked, *freed, *gone),
        (note, *notes, *told, *said, *heard),
        undo=put_back,
    )


def _into(state: State, context: Context, kind: type[E], what: str, status: UnitStatus) -> E:
    """A unit or group in its next status. Raises NotFound, Forbidden, Conflict."""
    before = record(state, context, kind, context.subject)
    require(state, context, before, ("status",))
    if before.status not in BEFORE[status]:
        wanted = " or ".join(one.value for one in BEFORE[status])
        raise Conflict(f"The {what} '{before.id}' is {before.status.value}, not {wanted}.", "Read it again.")
    return replace(before, status=status, status_since=context.now)


# ---------------------------------------------------------------- groups


def _register_group(state: State, context: Context, form: GroupForm) -> Outcome:
    """Form a group of units. Raises Conflict, Forbidden, Refused with every fault."""
    group = Group(form.id, form.provider or context.party, form.scope, form.product, form.perimeter, form.units,
                  form.balance_responsible_party)  # fmt: skip
    entry = GroupEntry(group.id, group, UnitStatus.NEW, context.now, context.now)
    require_new(state, context, entry, ("group.id", "group.provider"))
    absent(state, GroupEntry, "group", group.id)
    refuse("The group", [*id_faults("", group.id), *_group_faults(state, context, group, ())])
    note = Note("group.registered", group.id, audience(state, entry))
    return Outcome(shown(state, context, entry), ((GroupEntry, group.id, entry),), (note,), CREATED)


def _group_faults(state: State, context: Context, group: Group, had: Iterable[str]) -> Iterator[Finding]:
    """Every breach of the rules that the group would bring. Units of others are told like those that are not there."""
    place, mine = f"group {group.id}", set(had)
    if len(group.units) > MOST_UNITS_IN_A_GROUP:
        yield Finding(place, "too_many_units", f"A group has at most {MOST_UNITS_IN_A_GROUP} units; make several.")
    known = tuple(name for name in group.units if name in mine or knows(state, context, UnitEntry, name))
    for name in sorted(set(group.units) - set(known)):
        message = f"There is no unit '{name}'; register it or remove it from the group."
        yield Finding(place, "unknown_unit", message)
    for fault in rules.findings(state, rules.Draft(groups={group.id: replace(group, units=known)})):
        if fault.code != "empty_group" or not group.units:
            yield fault
    product = state.find(ProductEntry, group.product)
    if product is not None and product.withdrawn is not None:
        yield Finding(place, "product_withdrawn", f"The product '{product.id}' is withdrawn; choose another one.")


def _change_group(state: State, context: Context, form: GroupChange) -> Outcome:
    """Change a group; other units or another place are a material change.

    Raises NotFound, Forbidden, Conflict, Refused with every fault.
    """
    before = record(state, context, GroupEntry, context.subject)
    given = changes(form)
    require(state, context, before, (f"group.{name}" for name in given))
    _alive(before, "group")
    group = replace(before.group, **given)
    refuse("The group", _group_faults(state, context, group, before.group.units))
    material = set(group.units) != set(before.group.units) or group.perimeter != before.group.perimeter
    after = replace(before, group=group, changed_materially=context.now if material else before.changed_materially)
    told = encode({"fields": sorted(given), "material": material})
    note = Note("group.changed", group.id, audience(state, after, *concerned(state, before)), told)
    return Outcome(shown(state, context, after), ((GroupEntry, group.id, after),), (note,))


def _step_group(status: UnitStatus, what: str) -> Callable[[State, Context, Nothing], Outcome]:
    def step(state: State, context: Context, form: Nothing) -> Outcome:
        """Bring a group into a status. Raises NotFound, Forbidden, Conflict."""
        entry = _into(state, context, GroupEntry, "group", status)
        note = Note(f"group.{what}", entry.id, audience(state, entry))
        return Outcome(shown(state, context, entry), ((GroupEntry, entry.id, entry),), (note,))

    return step


# ---------------------------------------------------------------- verbs

_KEEPER = Role.REGISTER_OPERATOR
_GRID = frozenset({Role.DSO, Role.TSO, _KEEPER})
_PROVIDING = frozenset({Role.SERVICE_PROVIDER, _KEEPER})
_GROUPING = _PROVIDING | {Role.MARKET_OPERATOR}
_STEPPING = _GROUPING | {Role.DSO, Role.TSO, Role.ASSET_OWNER}
VERBS = (
    Verb("perimeter.set", PerimeterForm, _set_perimeter, _GRID, Perimeter),
    Verb("perimeter.remove", Nothing, _remove_perimeter, _GRID, Perimeter),
    Verb("connection_point.register", PointForm, _register_point, _GRID | _PROVIDING),
    Verb("connection_point.change", PointChange, _change_point, _GRID | _PROVIDING, PointEntry),
    Verb("connection_point.end", Nothing, _end_point, _GRID, PointEntry),
    Verb("unit.register", UnitForm, _register_unit, _PROVIDING),
    Verb("unit.change", UnitChange, _change_unit, _PROVIDING, UnitEntry),
    Verb("unit.activate", Nothing, _activate_unit, _STEPPING, UnitEntry),
    Verb("unit.deactivate", Nothing, _deactivate_unit, _STEPPING, UnitEntry),
    Verb("unit.terminate", Nothing, _terminate_unit, _STEPPING, UnitEntry),
    Verb("unit.switch", Switch, _switch_unit, _PROVIDING, UnitEntry),
    Verb("group.register", GroupForm, _register_group, _PROVIDING),
    Verb("group.change", GroupChange, _change_group, _PROVIDING, GroupEntry),
    Verb("group.activate", Nothing, _step_group(UnitStatus.ACTIVE, "activated"), _GROUPING, GroupEntry),
    Verb("group.deactivate", Nothing, _step_group(UnitStatus.INACTIVE, "deactivated"), _GROUPING, GroupEntry),
    Verb("group.terminate", Nothing, _step_group(UnitStatus.TERMINATED, "terminated"), _GROUPING, GroupEntry),
    *IMPORT,
)
