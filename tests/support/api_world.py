"""One record of every kind around the first unit of `support.platform`, and a second party of every role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from coflex.domain.activation import Piece
from coflex.domain.clearing import Award, MeritLine, Reason, Status, Uncovered
from coflex.domain.party import Party, Role
from coflex.domain.quantity import Direction
from coflex.domain.reading import Quality
from coflex.domain.unit import ConnectionPoint, Level
from coflex.qualification.requirements import Procedure, Service, SignalKind, requirements
from coflex.qualification.signals import make
from coflex.qualification.verdict import Recording
from coflex.register.access import ClientScope, Issuer, Naming, User, Webhook, WebhookProgress, login_digest
from coflex.register.activations import ActivationOrder, Backup, OrderKind, OrderState, Regulation, SetPointEntry
from coflex.register.consents import Availability
from coflex.register.devices import DataGrant, DataScope, Device, DeviceKey
from coflex.register.market import Asked, Proposal, ProposalStatus, SessionEntry, SessionRequests
from coflex.register.outcomes import SessionOutcome, Step, outcome_id, pack
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.register.prequalification import (
    Agreement,
    AnswerRecording,
    MemberStatus,
    ProductProcedure,
    ProductTest,
    SchedulingMember,
    SchedulingType,
    SchedulingUnit,
    Subject,
)
from coflex.register.prequalification import SchedulingStatus as S
from coflex.register.products import ProductEntry
from coflex.register.resources import Perimeter, PointEntry, UnitEntry
from coflex.register.settlement import (
    BaselineDay,
    BillingDetails,
    DisputeEntry,
    DisputeStep,
    InvoiceEntry,
    Kept,
    MeteredDay,
    OwnerContract,
    Quantity,
    ReadyDay,
    SettlementRun,
    SettlementTerms,
    SharedPurchase,
    Sharer,
    StatementEntry,
    Terms,
    packed,
)
from coflex.service.ports import Command, Personal
from coflex.service.posting import kept_invoice
from coflex.settlement.books import book
from coflex.settlement.charges import settle
from coflex.settlement.dispute import State
from coflex.settlement.document import Need, Payer
from coflex.settlement.inputs import Bought, Delivery, Inputs
from coflex.settlement.invoice import Details, issue
from coflex.settlement.invoice import Terms as PaymentTerms
from coflex.settlement.shelf import load_rule, rule_text
from support.api import PARTY_OF, client
from support.platform import FIRST, FIRST_START, LONG_AGO, OPEN, TENANT, put, register

# What is settled: a day, by one run, with one line that every first party has in its statement.
SETTLED = "2016-07-05"
RUN = f"{SETTLED}.1"
LINE = f"{FIRST}|d1|a1|activation|sp-1|dso"
# A second party of each role, to which nothing of the first one belongs.
OTHER_OF = {role: f"{party.removesuffix('-1')}-2" for role, party in PARTY_OF.items()}


def others() -> Iterator[Any]:
    """The second parties with a client, and a second client of every first one."""
    for role, name in OTHER_OF.items():
        yield PartyEntry(name, Party(name, name.upper(), (role,)), PartyStatus.APPROVED, LONG_AGO)
        yield client(f"client-{name}", name)
    for name in PARTY_OF.values():
        yield client(f"second-{name}", name)
    yield replace(client("reader-sp-1", "sp-1"), scopes=(ClientScope.READ,))
    yield replace(client("nothing-sp-1", "sp-1"), scopes=())


def records() -> Iterator[Any]:
    """Everything that a path can name, of the first parties."""
    for name in PARTY_OF.values():
        yield from _access(name)
    yield Perimeter("per-1", "dso", "P-1", ("B1",))
    yield Availability("cu-0001", "owner", ())
    yield from _qualification()
    yield from _scheduling()
    yield from _activation()
    yield from _settlement()
    everybody = tuple(sorted(PARTY_OF.values()))
    yield Issuer(
        "issuer-1", "https://id.example", "coflex", "party", Naming.PARTY, everybody, (ClientScope.READ,), everybody
    )
    asked = Asked(FIRST_START, Direction.UP, 100, Decimal(90))
    yield SessionRequests(FIRST, FIRST, "dso", (asked,))


def persons() -> Command:
    """Personal data of every first party."""
    private = tuple(Personal(name, b"salt", b'{"name":"Ada","email":"ada@example.org"}') for name in PARTY_OF.values())
    return replace(put([]), private=private)


def _access(party: str) -> Iterator[Any]:
    yield User(f"user-{party}", party, (ClientScope.READ,), login_digest(TENANT, party), "", LONG_AGO, LONG_AGO)
    yield Webhook(f"webhook-{party}", party, f"https://{party}.example/hook", ("*",), LONG_AGO)
    yield WebhookProgress(f"webhook-{party}", party, 1, 0)
    verb, subject, body = "session.rerun", FIRST, '{"reason": "as an example"}'
    if party in ("dso", "tso"):
        scope = "local" if party == "dso" else "global"
        verb, subject, body = "product.set_price_cap", f"{scope}_energy", '{"price_cap_eur_mwh": "900"}'
    yield Proposal(f"proposal-{party}", verb, subject, party, body, f"user-{party}", LONG_AGO, ProposalStatus.WAITING)


def _qualification() -> Iterator[Any]:
    product = next(one.product for one in register(1, 1) if isinstance(one, ProductEntry) and one.id == "local_energy")
    procedure = Procedure(Service.CONGESTION_MANAGEMENT, (SignalKind.STEP,))
    wanted = requirements(product, procedure, SignalKind.STEP)
    signal = make(wanted, 100, 0, 0)
    starts = OPEN + timedelta(days=1)
    test = ProductTest(
        id="test-1", subject=Subject.GROUP, subject_id="sp-1-local@local_energy", product="local_energy",
        provider="sp-1", tester="dso", present=(), attempt=1, starts=starts,
        ends=starts + timedelta(seconds=signal.length_s), signal=signal, asked=wanted, baseline=(), as_of=LONG_AGO,
    )  # fmt: skip
    yield test
    yield replace(test, id="test-2", subject=Subject.SCHEDULING_UNIT, subject_id="su-3", tester="tso", present=("dso",))
    recording = Recording((starts,), (0.0,), (Quality.MEASURED,), "kW", 60.0, 1.0)
    yield AnswerRecording("test-1", "sp-1", "dso", (), recording, "sp-1", LONG_AGO)
    yield ProductProcedure("local_energy", procedure, "dso")


def _activation() -> Iterator[Any]:
    """A unit in the grids of both operators, with a device and a backup; and for every party an order, a set point, a
    regulation and a grant that concern it where they can."""
    point = ConnectionPoint("pod-act", "", Level.DISTRIBUTION, 20.0, "dso", "owner", 41.9, 12.5)
    known = next(one for one in register(1, 1) if isinstance(one, UnitEntry))
    unit = replace(known.unit, id="cu-act", connection_point="pod-act")
    yield PointEntry("pod-act", point, ("tso",))
    yield replace(known, id="cu-act", unit=unit)
    key = DeviceKey("ef" * 32, LONG_AGO)
    yield Device("device-1", 1, "cu-act", "owner", (key,), LONG_AGO, "owner")
    later = FIRST_START + timedelta(days=1)
    yield Backup("backup-1", "sp-1", "owner", "cu-act", later, later + timedelta(hours=1), LONG_AGO)
    pieces = (Piece(FIRST_START, FIRST_START + timedelta(hours=1), 50),)
    both = ("dso", "tso")
    for party in PARTY_OF.values():
        buyer = party if party in both else "dso"
        order = ActivationOrder(
            f"activation-{party}", OrderKind.SCHEDULED, OrderState.SPLIT, buyer, "sp-1", "local_energy", FIRST,
            f"sp-1/{party}", Direction.UP, "cu-act", None, pieces, pieces, OPEN, OPEN, both,
        )  # fmt: skip
        yield order
        yield SetPointEntry(
            f"{order.id}.cu-act", order.id, FIRST, "cu-act", "owner", "sp-1", buyer, both, Direction.UP, pieces, 1, OPEN
        )
        yield Regulation(
            f"regulation-{party}", buyer, "sp-1", "local_energy", FIRST, (), f"band-{party}", FIRST_START,
            FIRST_START + timedelta(hours=1), 0, 0, 300, (), both,
        )  # fmt: skip
        scope = (DataScope.LIVE,)
        yield DataGrant(f"data-grant-{party}", "owner", "cu-act", party, scope, LONG_AGO, FIRST_START)


def _settlement() -> Iterator[Any]:
    """A unit's metered day with its baseline; a run of one delivery; and for every party a statement, an invoice, a
    dispute and its billing details."""
    day = date.fromisoformat(SETTLED)
    sides = ("cu-act", day, ("owner",), ("sp-1",))
    quantity = Quantity(FIRST_START, Decimal(-15), Quality.MEASURED, 1, 10)
    yield MeteredDay("cu-act@2016-07-05", *sides, "log", (quantity,))
    terms = Terms(date(2016, 1, 1), "local_congestion", rule_text("local_congestion"), ("nominated",))
    yield SettlementTerms("local_energy", (terms,))
    yield BaselineDay("cu-act@2016-07-05", *sides, "zero", 1, "", "", FIRST_START, (Decimal(0),) * 96, 10)
    yield ReadyDay("sp-1-local@2016-07-05", "sp-1-local", day, "sp-1", "log", ())
    yield OwnerContract(
        "owner-contract-1", "cu-act", "sp-1", "owner", Decimal("0.5"), Decimal(0), Decimal(0), date(2016, 8, 1)
    )
    for party, role, buyer, part in (
        ("dso", Payer.DSO, "tso", Payer.TSO),
        ("tso", Payer.TSO, "dso", Payer.DSO),
        ("brp", Payer.BRP, "dso", Payer.DSO),
        ("mo", Payer.BRP, "dso", Payer.DSO),
    ):
        sharers = (Sharer(part, buyer, Decimal(1), LONG_AGO), Sharer(role, party, Decimal(1)))
        yield SharedPurchase(f"shared-purchase-{party}", FIRST, day, buyer, sharers)
    bought = (Bought("a1", Decimal(25), Decimal(80), penalty_eur_mwh=Decimal(11)),)
    delivery = Delivery(
        id="d1", rule="uftp", unit="cu-act", provider="sp-1", buyer="dso", session=FIRST, need=Need.DSO_CONGESTION,
        start=FIRST_START, minutes=15, direction=Direction.UP, ordered_kwh=Decimal(25), bought=bought,
        baseline_kwh=Decimal(-40), measured_kwh=Decimal(-15),
    )  # fmt: skip
    inputs = Inputs(SETTLED, (delivery,), platform="mo")
    lines = book(settle(inputs, {"uftp": load_rule("uftp")}), SETTLED).lines
    (line,) = (one for one in lines if one.charge.id == LINE)
    sums = dict.fromkeys(("paid_cents", "received_cents", "fee_cents", "rounding_cents"), 0)
    yield SettlementRun(RUN, SETTLED, 1, day, day, LONG_AGO, "ann", "", "", 1, 0, len(lines), 0, **sums)
    yield Kept(RUN, packed(inputs), packed({"uftp": rule_text("uftp")}), packed(lines))
    for party in PARTY_OF.values():
        address = Details(party, party, "", "Rome", "", "IT", prefix=f"{party}-x")
        yield BillingDetails(party, address)
        yield StatementEntry(f"{RUN}.{party}", RUN, SETTLED, party, LONG_AGO, (), 0, 1)
        yield Kept(f"{RUN}.{party}", lines=packed([replace(line, charge=replace(line.charge, seller=party))]))
        number = f"invoice-{party}"
        made = issue((line,), {"sp-1": replace(address, id="sp-1"), "dso": replace(address, id="dso")}, SETTLED,
                     PaymentTerms(day), {}).invoices[0]  # fmt: skip
        yield InvoiceEntry(
            number, RUN, SETTLED, made.kind, party, "mo", made.issued, made.due, made.positions, made.net_cents,
            made.tax, made.tax_cents, made.gross_cents,
        )  # fmt: skip
        yield Kept(kept_invoice(number), invoice=packed(made))
        opened = DisputeStep(State.OPENED, LONG_AGO, party, "wrong")
        yield DisputeEntry(f"dispute-{party}", SETTLED, LINE, party, party, "mo", State.OPENED, (opened,))


def _scheduling() -> Iterator[Any]:
    """One unit in each state in which somebody has to do something: su-1 is open, su-2 is to be confirmed, su-3 to be
    tested, su-4 to be agreed on."""
    for id, status in (("su-1", S.DECLARED), ("su-2", S.CLOSED), ("su-3", S.TEST_REQUESTED), ("su-4", S.REGISTERED)):
        yield SchedulingUnit(
            id, "sp-1", "tso", SchedulingType.DEMAND, ("global_energy",), status, LONG_AGO,
            providers=("sp-1",), operators=("dso",),
        )  # fmt: skip
    yield SchedulingMember("su-1@cu-0001", "su-1", "sp-1", "cu-0001", "sp-1", MemberStatus.OFFERED, LONG_AGO)
    yield Agreement("tso@sp-1", "tso", "sp-1", "A-1", 1, LONG_AGO, ("su-1",))
    for name in ("sp-1", "sp-2"):
        roles = (Role.SERVICE_PROVIDER,)
        yield PartyEntry(name, Party(name, name, roles), PartyStatus.APPROVED, LONG_AGO, tso_contract=f"C-{name}")


def published(entry: SessionEntry) -> Iterator[Any]:
    """The records of a session that has a result."""
    rows = [award("sp-1", 10), award("sp-2", 20), award("sp-2", 30), line("sp-1", 1, Reason.ACCEPTED),
            line("sp-2", 2, Reason.OUT_OF_MERIT),
            Uncovered(entry.id, FIRST_START, "line 3", 0.1, "MW", ("line 3",))]  # fmt: skip
    id = outcome_id(entry.id, Step.RESULT)
    yield SessionOutcome(id, entry.day, entry.session, Step.RESULT, FIRST_START, "dso", added=pack(rows))
    yield SessionEntry(id=entry.id, day=entry.day, session=entry.session, state="published", opens=entry.opens,
                       closes=entry.closes, outcome=id, design=entry.design)  # fmt: skip


def award(provider: str, kw: int) -> Award:
    return Award(
        FIRST, f"{provider}/o", 1, provider, "dso", "local_energy", "cu-0001", None, Direction.UP, FIRST_START, kw,
        Decimal("45"), Decimal("45"), Status.DEFINITIVE,
    )  # fmt: skip


def line(provider: str, rank: int, reason: Reason) -> MeritLine:
    return MeritLine(
        FIRST, "local_energy", Direction.UP, FIRST_START, rank, f"{provider}/o", 1, provider, "P-1", Decimal("45"),
        100, 100, Status.DEFINITIVE, reason, "",
    )  # fmt: skip
