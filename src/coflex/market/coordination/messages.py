"""How many messages a run takes: what the design's exchanges say, times what there was to tell in each round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from coflex.domain.reserve import Reservation
from coflex.market.coordination.outcome import Bought, Held, Message
from coflex.market.coordination.world import World
from coflex.market.design import Design, Session
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
) -> tuple[Message, ...]:
    """Messages of every round by sender, receiver and kind, in the order in which the process has them.

    `rounds`: the session that each round belongs to. An exchange per offer counts the offers of the round's book, per
    line its awards, once more for each further walk over a list; per seller and provider those who may offer before the
    gate, and those who sold after it; per grid the distribution grids.
    """
    told: dict[str, list[Exchange]] = defaultdict(list)
    for exchange in exchanges(design):
        told[exchange.session].append(exchange)
    sold: dict[str, _Sold] = defaultdict(_Sold)
    for award in (one.award for one in bought):
        sold[award.session].add(award.unit, award.provider)
    for kept in reserved:
        sold[kept.session].add(kept.unit, kept.provider)
    found = list(_messages("", told[""], _before(world, None), len(world.grids)))
    for one in held:
        session = rounds[one.session]
        before, after = _before(world, session), sold[one.session]
        market = {**before, Per.OFFER: one.offers, Per.LINE: one.awards * max(1, one.validated)}
        deals = {Per.OFFER: after.lines, Per.LINE: after.lines}
        deals |= {Per.SELLER: len(after.units), Per.PROVIDER: len(after.providers)}
        for exchange in told[session.id]:
            late = exchange.phase in (Phase.DELIVERY, Phase.SETTLEMENT)
            found += _messages(one.session, [exchange], deals if late else market, len(world.grids))
    return tuple(found)


def _before(world: World, session: Session | None) -> dict[Per, int]:
    """Sellers and providers who may offer."""
    levels = None if session is None else session.sellers.levels
    mine = [one for one in world.sellers if levels is None or one.level in levels]
    return {Per.SELLER: len(mine), Per.PROVIDER: len({one.provider for one in mine})}


def _messages(name: str, told: Sequence[Exchange], count: Mapping[Per, int], grids: int) -> Iterator[Message]:
    for one in told:
        number = {Per.ONCE: 1, Per.GRID: grids}.get(one.per, count.get(one.per, 0))
        if number:
            yield Message(name, one.sender, one.receiver, one.information.value, number)
