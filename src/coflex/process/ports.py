"""Ports: what the business asks of the world. Adapters and simulations answer; nothing here knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from zoneinfo import ZoneInfo

from coflex.domain.activation import Hop, SetPoint
from coflex.domain.need import Request
from coflex.domain.offer import Offer
from coflex.domain.party import Party
from coflex.domain.product import Product
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import Axis, delivery_day
from coflex.domain.unit import ConnectionPoint, Group, Unit
from coflex.grid.tables import GridTables

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class TsoSettings:
    """What the TSO simulator asks for: peaks in MW per direction, and the most it pays."""

    up_mw: float
    down_mw: float
    price_limit_eur_mwh: Decimal


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """How simulated devices behave: share of called units that fail in a day, and noise of meters and forecasts."""

    failure_share: float
    noise_share: float


@dataclass(frozen=True, slots=True)
class CaseSettings:
    """The case's own page: what, where, when, and the numbers of its counterparts."""

    id: str
    title: str
    grid: str
    day: date
    zone: str
    seed: int
    design: str
    load_scale: float
    pv_scale: float
    tso: TsoSettings
    devices: DeviceSettings


@dataclass(frozen=True, eq=False)
class Case:
    """Everything a delivery day needs. `profiles`: the whole year, shares of each element's power."""

    settings: CaseSettings
    grid: GridTables
    profiles: Series
    parties: tuple[Party, ...]
    points: tuple[ConnectionPoint, ...]
    units: tuple[Unit, ...]
    groups: tuple[Group, ...]
    products: tuple[Product, ...]

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.settings.zone)

    @property
    def axis(self) -> Axis:
        """The quarter-hours of the delivery day."""
        return delivery_day(self.settings.day, self.zone)


class Transaction(Protocol):
    """One unit of work: all of it is written at its end, or nothing."""

    def add(self, records: Iterable[object]) -> None:
        """Write new records, of any registered record types. Raises SoldTwice when a holding is already there."""
        ...

    def all(self, kind: type[R], /, **where: object) -> tuple[R, ...]:
        """Records of one type whose fields equal the given values, in the order of their keys."""
        ...

    def remove(self, kind: type[object], /, **where: object) -> int:
        """Delete matching records; returns how many."""
        ...

    def put_document(self, name: str, body: dict[str, Any]) -> None:
        """Write (or replace) a named JSON document."""
        ...

    def document(self, name: str) -> dict[str, Any] | None:
        """A named JSON document, or None."""
        ...

    def put_series(self, name: str, series: Series) -> None:
        """Write (or replace) named series, to the bit."""
        ...

    def series(self, name: str) -> Series | None:
        """Named series, or None."""
        ...

    def event(self, kind: str, at: datetime, sender: str, receiver: str, detail: str) -> None:
        """Append one message or state change to the log, in the same transaction as what it tells."""
        ...


class Store(Protocol):
    """Where verbs meet. A transaction is exclusive: check and write are one step."""

    def transaction(self) -> AbstractContextManager[Transaction]: ...


@dataclass(frozen=True, slots=True)
class Event:
    """One message or state change: who told whom what, when."""

    number: int
    kind: str
    at: datetime
    sender: str
    receiver: str
    detail: str


@dataclass(frozen=True, slots=True)
class SessionCall:
    """What a provider is told when a session opens: see-through to it, nothing of others.

    `firm`: the part of the horizon that becomes definitive. `up_kw`, `down_kw` [i, t]: free and qualified power of
    the units in the order of `units`; `held[i, t]`: it may not be offered; `energy_up_kwh`, `energy_down_kwh` [i]:
    what a unit can still give, infinite where nothing limits it.
    """

    session: str
    scope: str
    product: Product
    horizon: Axis
    firm: Axis
    opens: datetime
    closes: datetime
    units: tuple[Unit, ...]
    groups: tuple[Group, ...]
    up_kw: Floats
    down_kw: Floats
    held: Bools
    energy_up_kwh: Floats
    energy_down_kwh: Floats


class Providers(Protocol):
    """The counterpart that offers: simulated here, real parties elsewhere."""

    def offers(self, call: SessionCall) -> Sequence[Offer]: ...


class SystemOperator(Protocol):
    """The counterpart that asks for system services (TSO)."""

    def requests(self, session: str, number: int, horizon: Axis, product: Product) -> Sequence[Request]: ...


class Devices(Protocol):
    """The field: set points in, what really flowed out."""

    def respond(self, setpoints: Sequence[SetPoint], baseline: Series) -> Series:
        """Mean power of each unit of `baseline` in kW per quarter-hour, given what it was told."""
        ...


@dataclass(frozen=True, eq=False)
class Proof:
    """Where a day stands in a log of signed messages. `size` of the log `origin`, covered by the signed `checkpoint`;
    `key` checks it. By unit and quarter-hour: the number of the set point's message, and which hop took it when."""

    origin: str
    size: int
    checkpoint: str
    key: str
    orders: Mapping[tuple[str, datetime], int]
    hops: Mapping[tuple[str, datetime], tuple[tuple[Hop, datetime], ...]]


@dataclass(frozen=True, eq=False)
class Metering:
    """What meters told of a day: mean power in kW, injection positive, NaN where they told nothing. `leaves[i, t]`:
    number in the log of the message that told it, -1 where none did."""

    metered: Series
    leaves: Ints
    proof: Proof


class Evidence(Protocol):
    """The way of orders to the field and of measurements back, as signed messages in a log."""

    def order(self, points: Sequence[SetPoint]) -> None:
        """Send set points. Sending them again changes nothing."""
        ...

    def collect(self, points: Sequence[SetPoint], flowed: Series) -> Metering:
        """What the meters of the units tell of what `flowed`; the same when asked again."""
        ...

    def certificate(self, leaves: Sequence[int]) -> bytes:
        """Messages of the log with all that is needed to check them offline."""
        ...


@dataclass(frozen=True, slots=True)
class Table(Generic[R]):
    """Rows of one frozen dataclass; its fields are the columns, also where there is no row."""

    kind: type[R]
    rows: Sequence[R]


class Publisher(Protocol):
    """Where the outcome of a day goes."""

    def publish(
        self,
        tables: Mapping[str, Table[Any]],
        documents: Mapping[str, dict[str, Any]],
        report: dict[str, Any],
        files: Mapping[str, bytes],
    ) -> Path:
        """Put out tables and documents by name, the page drawn from `report`, and files as they are: all or nothing.

        Returns where the page is.
        """
        ...


Progress = Callable[[str], None]
