"""The offers of one session together: what is taken, and what each new one may not collide with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from coflex.domain.errors import CoflexError, Finding
from coflex.domain.offer import Offer
from coflex.domain.qualification import ProductLimit
from coflex.domain.quantity import Direction
from coflex.market.design import SessionPlan
from coflex.market.intake.context import IntakeContext
from coflex.market.intake.laid import Account, Cells, Laid, Pool, PoolWay, SellerWay, UnitWay, fault, lowest, order
from coflex.market.intake.rules import Rules
from coflex.market.intake.sellers import Sellers


def intake(
    plan: SessionPlan, offers: Sequence[Offer], context: IntakeContext
) -> tuple[tuple[Offer, ...], tuple[Finding, ...]]:
    """The offers that the session takes, by receipt and id, and every fault of the others, sorted by place.

    An offer is taken whole or not at all. Of offers that collide (same id, same label of two providers, same
    unit in a quarter-hour and direction, more together than their group is qualified for) those with the lowest
    receipt numbers stay; the order of `offers` does not matter.
    """
    accepted, _, found = Intake(plan, context)._judge(offers)
    return tuple([laid.offer for laid in accepted]), _sorted(found)


def no_longer(plan: SessionPlan, offers: Iterable[Offer], context: IntakeContext) -> dict[str, str]:
    """Offers that were taken before and whose sellers may not sell them any more, by id, each with the reasons. What
    the offers themselves ask was checked when they came."""
    sellers = Sellers(plan, context, {})
    why: dict[tuple[str, str | None, str | None, str], str] = {}
    found = {}
    for offer in offers:
        key = (offer.provider, offer.unit, offer.group, offer.product)
        if key not in why:
            why[key] = " ".join([fault.message for fault in sellers.faults(offer)])
        if why[key]:
            found[offer.id] = why[key]
    return found


class Intake:
    """The offers that one session has taken, and the check of those that come. Used from one thread.

    A parcel is taken whole or not at all; what an exception interrupts leaves everything as it was.
    """

    def __init__(self, plan: SessionPlan, context: IntakeContext) -> None:
        self._plan = plan
        self._offers: dict[str, Offer] = {}
        self._taken: dict[str, Laid] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._cells: dict[UnitWay, Cells] = defaultdict(Cells)
        self._accounts: dict[SellerWay, Account] = {}
        self._pools: dict[PoolWay | None, Pool] = {}
        self._rules = Rules(plan, Sellers(plan, context, self._cells))
        self.put(context.taken)

    @property
    def offers(self) -> Mapping[str, Offer]:
        """What is taken now, by id, in the order of taking; a view that follows."""
        return MappingProxyType(self._offers)

    def check(self, offers: Sequence[Offer]) -> tuple[Finding, ...]:
        """Every fault of a parcel against what is taken, sorted by place; changes nothing."""
        _, clean, found = self._judge(offers)
        self._forget(clean)
        return _sorted(found)

    def take(self, offers: Sequence[Offer]) -> tuple[Finding, ...]:
        """Take a parcel if it has no fault; otherwise every fault, sorted by place, and nothing is taken."""
        _, clean, found = self._judge(offers)
        if found:
            self._forget(clean)
        return _sorted(found)

    def put(self, offers: Iterable[Offer]) -> None:
        """Take offers that were checked before. Raises CoflexError, taking none, where an id is here already."""
        offers = tuple(offers)
        names = {offer.id for offer in offers}
        if len(names) < len(offers) or not self._taken.keys().isdisjoint(names):
            raise CoflexError("An offer of this id is already taken.", "Give it back before it is put in again.")
        rules, lot = self._rules, self._rules.sellers.lot
        for laid in [rules.lay(offer, lot(offer, []), rules.firsts(offer)) for offer in offers]:
            # Made anew when they are next asked for.
            self._accounts.pop(laid.lot.name, None)
            self._pools.pop(self._pool_of(laid.offer), None)
            self._occupy(laid)
            self._enter(laid)

    def give_back(self, ids: Iterable[str]) -> None:
        """Forget offers, as if they had never been taken. Raises CoflexError, forgetting none, on an id not here."""
        names = dict.fromkeys(ids)
        for name in names:
            if name not in self._taken:
                raise CoflexError(f"The offer '{name}' is not taken here.", "Give back what was taken.")
        self._forget([self._taken[name] for name in names])

    def renew(self, context: IntakeContext) -> None:
        """Check from now on against another context; what is taken stays, and `context.taken` is not read."""
        old, new = self._rules.sellers.context, context
        changed = old.units.keys() ^ new.units.keys() | {
            name for name in old.groups.keys() | new.groups.keys() if _members(old, name) != _members(new, name)
        }
        moved = [o for o in self._offers.values() if o.unit in changed or o.group in changed] if changed else []
        rules = Rules(self._plan, Sellers(self._plan, context, self._cells))
        self._forget([self._taken[offer.id] for offer in moved])
        self._accounts.clear()
        self._pools.clear()
        self._rules = rules
        self.put(moved)

    # ------------------------------------------------------------ a parcel

    def _judge(self, offers: Sequence[Offer]) -> tuple[list[Laid], list[Laid], list[Finding]]:
        """What a parcel's offers come to: those without any fault, which are taken; those without a fault of their
        own, of which some traces may be kept; and all faults."""
        ordered = sorted(offers, key=order)
        found: list[Finding] = []
        clean = self._each(ordered, found)
        try:
            return self._together(clean, found), clean, found
        except BaseException:
            self._forget(clean)
            raise

    def _each(self, ordered: Sequence[Offer], found: list[Finding]) -> list[Laid]:
        """Offers that are clean by themselves, with an id of their own and no other provider's label."""
        look, taken, receipts = self._rules.look, self._taken, _same_ids(ordered)
        clean: list[Laid] = []
        owners: dict[str, str] = {}
        for offer in ordered:
            before = len(found)
            laid = look(offer, found)
            if offer.id in taken or (offer.id in receipts and not _is_first(offer, receipts[offer.id])):
                message = "An offer of this id is already here; give each its own id."
                found.append(fault(offer, "duplicate_id", message))
            if offer.exclusive is not None and self._owner(offer.exclusive, offer, owners) != offer.provider:
                message = f"The exclusive label '{offer.exclusive}' is another provider's; choose a label of your own."
                found.append(fault(offer, "foreign_label", message))
            if len(found) == before:
                clean.append(laid)
        return clean

    def _owner(self, label: str, offer: Offer, owners: dict[str, str]) -> str:
        """The provider that used a label first: of an offer taken, or of one that stands earlier in the parcel."""
        taken = self._labels.get(label)
        return next(iter(taken.values())) if taken else owners.setdefault(label, offer.provider)

    def _together(self, clean: Sequence[Laid], found: list[Finding]) -> list[Laid]:
        """Take each offer that can stand beside those before it. Energy and quarter-hours are looked at apart: an
        offer that fails in one still stands in the way of later ones in the other. What a group is qualified for is
        looked at last, and taken up by none that fails."""
        accepted = []
        for laid in clean:
            beyond = self._charge(laid) if laid.lot.limited else None
            twice = self._twice(laid)
            if twice is None:
                self._occupy(laid)
            obstacle = twice or beyond or self._pooled(laid)
            if obstacle is None:
                self._enter(laid)
                accepted.append(laid)
            else:
                found.append(obstacle)
        return accepted

    def _charge(self, laid: Laid) -> Finding | None:
        """Add an offer to its seller's account, unless the energy does not last for all that is there."""
        account, kwh = self._account(laid), self._rules.asked_kwh(laid, laid.lot)
        found: list[Finding] = []
        if account.besides(laid.offer):
            self._rules.lasts(laid, account.with_kwh(laid.offer, kwh), found, account.laid.values())
        if not found:
            account.add(laid, kwh)
        return found[0] if found else None

    def _account(self, laid: Laid) -> Account:
        """The seller's account; where it is first asked for, from those of its offers that are taken."""
        name = laid.lot.name
        if name not in self._accounts:
            account = self._accounts[name] = Account()
            for one in laid.lot.cells[0].laid.values():
                if one.lot.name == name:
                    account.add(one, self._rules.asked_kwh(one, laid.lot))
        return self._accounts[name]

    def _pooled(self, laid: Laid) -> Finding | None:
        """Add an offer to what is offered under its qualification, unless that were more than is qualified."""
        limit, direction = laid.lot.limit, laid.offer.direction
        if limit is None:
            return None
        pool, most_kw = self._pool(limit, direction), limit.kw(direction)
        beyond = pool.beyond(laid, most_kw)
        if beyond is None:
            pool.add(laid)
            return None
        t, left_kw = beyond
        message = (
            f"The group {limit.group} is qualified for {most_kw} kW of {limit.product} {direction}, and with its other "
            f"offers and those of its units only {left_kw} kW of them are left; offer at most that."
        )
        return fault(laid.offer, "above_qualified", message, self._rules.label(t))

    def _pool(self, limit: ProductLimit, direction: Direction) -> Pool:
        """What is offered under a qualification; where it is first asked for, from the offers that are taken."""
        name = (limit.group, limit.product, direction)
        if name not in self._pools:
            pool = self._pools[name] = Pool([0] * len(self._plan.horizon))
            there = [self._cells[unit, direction].laid for unit in limit.units if (unit, direction) in self._cells]
            for laid in {id: laid for of_unit in there for id, laid in of_unit.items()}.values():
                if laid.offer.id in self._taken and self._pool_of(laid.offer) == name:
                    pool.add(laid)
        return self._pools[name]

    def _pool_of(self, offer: Offer) -> PoolWay | None:
        limit = self._rules.sellers.limit(offer)
        return None if limit is None else (limit.group, limit.product, offer.direction)

    def _twice(self, laid: Laid) -> Finding | None:
        """The first unit of an offer that is already offered in one of its quarter-hours, in the same direction.

        Offers that share an exclusive label may do so, since only one of them can be taken.
        """
        for place, cells in enumerate(laid.lot.cells):
            if cells.mask & laid.mask:
                rival = cells.rival(laid)
                if rival is not None:
                    message = _both(laid.lot.units[place], laid.offer, rival.offer)
                    where = self._rules.label(lowest(rival.mask & laid.mask))
                    return fault(laid.offer, "offered_twice", message, where)
        return None

    # ------------------------------------------------------------ what is kept

    def _occupy(self, laid: Laid) -> None:
        for cells in laid.lot.cells:
            cells.add(laid)

    def _enter(self, laid: Laid) -> None:
        offer = laid.offer
        self._taken[offer.id], self._offers[offer.id] = laid, offer
        if offer.exclusive is not None:
            self._labels.setdefault(offer.exclusive, {})[offer.id] = offer.provider

    def _forget(self, gone: Iterable[Laid]) -> None:
        """Every trace of offers, whether or not they were taken in the end."""
        touched: set[Cells | Account] = set()
        for laid in gone:
            name, label = laid.offer.id, laid.offer.exclusive
            self._taken.pop(name, None)
            self._offers.pop(name, None)
            if label is not None and label in self._labels:
                self._labels[label].pop(name, None)
                if not self._labels[label]:
                    del self._labels[label]
            account = self._accounts.get(laid.lot.name)
            places: list[Cells | Account] = [*laid.lot.cells, *([account] if account else [])]
            touched.update([place for place in places if place.laid.pop(name, None) is not None])
            pool = self._pools.get(self._pool_of(laid.offer))
            if pool is not None and name in pool.laid:
                pool.remove(laid)
        for place in touched:
            place.recount()


def _both(unit: str, offer: Offer, rival: Offer) -> str:
    """That two offers sell one unit; of another provider's offer no more than that it is there."""
    if rival.provider != offer.provider:
        return f"Unit {unit} is still offered by the provider that it had before; offer it in a later session."
    return f"Unit {unit} is already in offer {rival.id}; offer it once, or give both one exclusive label."


def _members(context: IntakeContext, group: str) -> tuple[str, ...]:
    return context.groups[group].units if group in context.groups else ()


def _sorted(found: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(set(found))) if found else ()


def _same_ids(ordered: Sequence[Offer]) -> dict[str, list[int]]:
    """Receipts, ascending, of the offers of each id that stands more than once in a parcel."""
    if len({offer.id for offer in ordered}) == len(ordered):
        return {}
    receipts: dict[str, list[int]] = defaultdict(list)
    for offer in ordered:
        receipts[offer.id].append(offer.receipt)
    return {name: given for name, given in receipts.items() if len(given) > 1}


def _is_first(offer: Offer, receipts: Sequence[int]) -> bool:
    """Whether an offer was received before the others of its id; at one receipt none is the first."""
    return offer.receipt == receipts[0] < receipts[1]
