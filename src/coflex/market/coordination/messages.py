"""How many messages a run takes: what the design's exchanges say, times what there was to tell in each round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from coflex.domain.reserve import Reservation
from coflex.market.coordination.outcome import Bought, Held, LeaseAgreement, Message
from coflex.market.coordination.world import World
from coflex.market.design import Buyer, Design, Session, Trades
from coflex.market.design.exchanges import Exchange, Per, Phase, exchanges


@dataclass
class _Sold:
    """What a round has to deliver and settle: its lines, the units and the providers behind them."""

    lines: int = 0
    units: set[str] = field(default_factory=set)
    providers: set[str] = field(default_factory=set)

    def add(self, unit: str | None, provider: str) -> None:
        self.lines += 1
        self.units.add(unit or "")
        self.providers.add(provider)


def counted(
    design: Design,
    world: World,
    rounds: Mapping[str, Session],
    held: Sequence[Held],
    bought: Sequence[Bought],
    reserved: Sequence[Reservation],
    leases: Sequence[LeaseAgreement] = (),
) -> tuple[Message, ...]:
    """Messages of every round by sender, receiver and kind, in the order in which the process has them.

    `rounds`: the session that each round belongs to. An exchange per offer counts the offers of the round's book, per
    line its awards, once more for each further walk over a list; per seller and provider those who may offer before the
    gate, and those who sold after it; per grid the distribution grids. Where storage is let, lots stand for sellers and
    offers, their owners for providers, and providers' bids for lines before the gate.
    """
    told: dict[str, list[Exchange]] = defaultdict(list)
    for exchange in exchanges(design):
        told[exchange.session].append(exchange)
    sold = _sold(bought, reserved, leases)
    letting = all(session.trades is Trades.STORAGE_CAPACITY for session in design.sessions)
    everyone = _letting(world, None) if letting else _before(world, None)
    found = list(_messages("", told[""], everyone, len(world.grids)))
    for one in held:
        session = rounds[one.session]
        before, after = _before(world, session), sold[one.session]
        market = {**before, Per.OFFER: one.offers, Per.LINE: one.awards * max(1, one.validated)}
        if session.trades is Trades.STORAGE_CAPACITY:
            market |= _letting(world, session)
        deals = {Per.OFFER: after.lines, Per.LINE: after.lines}
        deals |= {Per.SELLER: len(after.units), Per.PROVIDER: len(after.providers)}
        for exchange in told[session.id]:
            late = exchange.phase in (Phase.DELIVERY, Phase.SETTLEMENT)
            found += _messages(one.session, [exchange], deals if late else market, len(world.grids))
    return tuple(found)


def _sold(
    bought: Sequence[Bought], reserved: Sequence[Reservation], leases: Sequence[LeaseAgreement]
) -> dict[str, _Sold]:
    """What each round has sold."""
    sold: dict[str, _Sold] = defaultdict(_Sold)
    for award in (one.award for one in bought):
        sold[award.session].add(award.unit, award.provider)
    for kept in reserved:
        sold[kept.session].add(kept.unit, kept.provider)
    for let in leases:
        sold[let.session].add(let.lot, let.owner)
    return sold


def _before(world: World, session: Session | None) -> dict[Per, int]:
    """Sellers and providers who may offer."""
    levels = None if session is None else session.sellers.levels
    mine = [one for one in world.sellers if levels is None or one.level in levels]
    return {Per.SELLER: len(mine), Per.PROVIDER: len({one.provider for one in mine})}


def _letting(world: World, session: Session | None) -> dict[Per, int]:
    """Lots to let, their owners, and the bids of those who are no system operators."""
    lots = [one for one in world.lots if session is None or one.level in session.sellers.levels]
    bids = [one for one in world.lease_bids if one.buyer is Buyer.BRP and one.lot in {lot.id for lot in lots}]
    return {Per.SELLER: len(lots), Per.PROVIDER: len({one.storage.owner for one in lots}), Per.LINE: len(bids)}


def _messages(name: str, told: Sequence[Exchange], count: Mapping[Per, int], grids: int) -> Iterator[Message]:
    for one in told:
        number = {Per.ONCE: 1, Per.GRID: grids}.get(one.per, count.get(one.per, 0))
        if number:
            yield Message(name, one.sender, one.receiver, one.information.value, number)
