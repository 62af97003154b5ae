"""`coflex settlement ...`: settle, invoice, verify and dispute over a folder of files, without a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import Json, application, day_of, instant_of
from coflex.domain.errors import CoflexError, Finding, NotFound, Refused, refuse

if TYPE_CHECKING:
    from coflex.adapters.cli.settlement_folder import Folder
    from coflex.domain.statement import Line
    from coflex.settlement.books import Run
    from coflex.settlement.dispute import Change
    from coflex.settlement.invoice import Invoice

Here = Annotated[Path, typer.Argument(exists=True, file_okay=False, metavar="FOLDER", help="Folder of the settlement.")]
Instant = Annotated[
    datetime, typer.Option("--at", parser=instant_of, metavar="INSTANT", help="When, as 2026-12-05T10:00:00Z.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why, in a sentence.")]
FORMS = ("html", "pdf", "csv", "xml")

settlements = typer.Typer(help="Settlement: rules, runs, invoices, their verification, disputes.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class ListedRule:
    """A rule on the list."""

    id: str
    version: int
    delivered: str
    pricing: str
    title: str


@dataclass(frozen=True, slots=True)
class RuleList:
    """The rules that come with coflex."""

    count: int
    rules: tuple[ListedRule, ...]


@dataclass(frozen=True, slots=True)
class Ran:
    """A run. `corrected`: lines that correct earlier ones. Paid = received + fees + rounding, to the cent."""

    run: str
    lines: int
    corrected: int
    paid_cents: int
    received_cents: int
    fee_cents: int
    rounding_cents: int


@dataclass(frozen=True, slots=True)
class BilledInvoice:
    """An invoice on the list."""

    number: str
    kind: str
    customer: str
    net_eur: str
    gross_eur: str


@dataclass(frozen=True, slots=True)
class Billed:
    """What was issued."""

    count: int
    invoices: tuple[BilledInvoice, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """What was recomputed and found equal to the cent. `certified`: deliveries whose certificates were looked at."""

    runs: int
    lines: int
    invoices: int
    certified: int


@dataclass(frozen=True, slots=True)
class Contested:
    """A dispute and where it stands. `difference_cents`: what the next run posts for it, to the line's seller."""

    dispute: str
    line: str
    state: str
    difference_cents: int


@settlements.command("rules", short_help="The rules that come with coflex.")
def rules_(
    ctx: typer.Context,
    rule: Annotated[str | None, typer.Argument(metavar="[RULE]", help="Show the document of this one.")] = None,
    as_json: Json = False,
) -> None:
    """The settlement rules that come with coflex, or the document of one, to begin one's own with.

    Example: coflex settlement rules local_congestion > rules/mine.yaml
    """
    with application(ctx, as_json):
        from coflex.settlement.shelf import load_rule, rule_text, rules

        if rule is not None:
            screen.put_json({"id": rule, "document": rule_text(rule)}) if as_json else screen.put_line(
                rule_text(rule).rstrip("\n")
            )
            return
        known = [load_rule(name) for name in rules()]
        listed = tuple(
            ListedRule(one.id, one.version, one.delivered.by.value, one.pricing.value, one.title) for one in known
        )
        answer = RuleList(len(listed), listed)
        screen.put_json(answer) if as_json else screen.put_answer("settlement rules", answer, len(listed))


@settlements.command(short_help="Every fault of a rule of your own.")
def check(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE", help="YAML file of a rule.")],
    as_json: Json = False,
) -> None:
    """Every fault of a rule document at once, each with its line and the next step, or that it is sound.

    Example: coflex settlement check rules/mine.yaml
    """
    with application(ctx, as_json):
        from coflex.adapters.cli.settlement_folder import text_of
        from coflex.settlement.reading import read_rule

        rule = read_rule(text_of(file), str(file))
        if as_json:
            screen.put_json(rule.model_dump(mode="json"))
        else:
            screen.put_line(f"{file} is sound: {rule.name}, {rule.title}.")


@settlements.command(short_help="Settle the folder's inputs, or post what changed.")
def run(ctx: typer.Context, folder: Here, as_json: Json = False) -> None:
    """Settle the folder's inputs: the first time all of them, later only the differences from what was posted.

    The run keeps the inputs and rules it was made from. Nothing to post, no run.

    Example: coflex settlement run november
    """
    with application(ctx, as_json):
        answer = _run(folder)
        screen.put_json(answer) if as_json else screen.put_table("settlement run", screen.facts(answer))


def _run(place: Path) -> Ran:
    from coflex.adapters.cli.settlement_folder import Folder, tables
    from coflex.settlement.books import balance, correct
    from coflex.settlement.charges import settle
    from coflex.settlement.records import lines_of
    from coflex.settlement.shelf import read_rules
    from coflex.settlement.transfer import adjustments

    folder = Folder(place)
    inputs = folder.inputs
    texts = folder.rule_texts(one.rule for one in inputs.deliveries)
    rules = read_rules(texts)
    made = correct(folder.posted, settle(inputs, rules), inputs.period)
    where = "none: nothing to post"
    # energy may move between parties where no money does, as inside the tolerance of a requested response
    last = folder.past[-1] if folder.past else None
    if made.lines or (last is not None and adjustments(inputs, rules) != adjustments(last.inputs, last.rules)):
        where = folder.put_run(inputs, texts, lines_of(made), tables(made, inputs, rules)).name
    money = balance(made.accounts, inputs.platform)
    corrected = sum(bool(line.charge.corrects) for line in made.lines)
    return Ran(where, len(made.lines), corrected, money.paid, money.received, money.fees, money.rounding)


@settlements.command(short_help="Issue the invoices of what is not billed yet.")
def invoice(
    ctx: typer.Context,
    folder: Here,
    issued: Annotated[date, typer.Option("--issued", parser=day_of, metavar="DATE", help="The date on them.")],
    due_days: Annotated[int, typer.Option("--due-days", min=0, help="Days until payment.")] = 30,
    as_json: Json = False,
) -> None:
    """Issue an invoice or credit note for each seller and customer of each run that is not billed yet, as JSON with
    every line, HTML, PDF, CSV and UBL (XML).

    Example: coflex settlement invoice november --issued 2026-12-05
    """
    with application(ctx, as_json):
        made = _issue(folder, issued, due_days)
        listed = tuple(
            BilledInvoice(one.number, one.kind, one.customer.id, _euros(one.net_cents), _euros(one.gross_cents))
            for one in made
        )
        answer = Billed(len(listed), listed)
        screen.put_json(answer) if as_json else screen.put_answer("settlement invoice", answer, len(listed))


def _issue(place: Path, issued: date, due_days: int) -> list[Invoice]:
    from coflex.adapters.cli.settlement_folder import Folder, unbilled
    from coflex.settlement.invoice import Terms, billed_on, issue

    folder = Folder(place)
    known, told = list(folder.invoices), folder.parties
    parties = {one.id: one for one in told.parties}
    numbers = dict(told.next_numbers)
    for one in known:
        numbers[one.seller.id] = max(numbers.get(one.seller.id, 1), int(one.number.rpartition("-")[2]) + 1)
    made: list[Invoice] = []
    for past, lines in unbilled(folder.past, known):
        terms = Terms(issued, due_days)
        answer = issue(lines, parties, past.inputs.period, terms, numbers, billed_on([*known, *made]))
        numbers = dict(answer.next_numbers)
        made += answer.invoices
    refuse("Invoices", _order_faults(made, known))
    for one in made:  # all or none
        folder.invoice_file(one.number)
    for one in made:
        folder.put_invoice(one, forms(one))
    return made


def _order_faults(made: Sequence[Invoice], known: Sequence[Invoice]) -> Iterator[Finding]:
    """Invoices dated before one that their seller issued already."""
    last: dict[str, date] = {}
    for one in known:
        last[one.seller.id] = max(one.issued, last.get(one.seller.id, one.issued))
    for one in made:
        if one.issued < last.get(one.seller.id, one.issued):
            message = f"{one.seller.id} issued one on {last[one.seller.id]}; choose that day or a later one."
            yield Finding(f"invoice {one.number}", "out_of_order", message)


def forms(one: Invoice) -> dict[str, bytes]:
    """An invoice in every form, by the ending of its file."""
    from coflex.reporting.invoice import invoice_csv, invoice_html
    from coflex.reporting.invoice_pdf import invoice_pdf
    from coflex.reporting.invoice_ubl import invoice_ubl

    return {
        "html": invoice_html(one).encode(),
        "pdf": invoice_pdf(one),
        "csv": invoice_csv(one).encode(),
        "xml": invoice_ubl(one),
    }


@settlements.command(short_help="Recompute every run and invoice from the evidence.")
def verify(
    ctx: typer.Context,
    folder: Here,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="PUBLIC", help="Key of the log of measurements, from elsewhere: name+id+base64 or hexadecimal."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute every run from the inputs and rules it kept, compare its lines and all invoices to the cent, and
    metered energies with their certificates. Ends with 1 and names the differences, the first one first.

    Example: coflex settlement verify november
    """
    with application(ctx, as_json):
        answer = _verify(folder, key)
        screen.put_json(answer) if as_json else screen.put_table("settlement verify", screen.facts(answer))


def _verify(place: Path, key: str | None) -> Verified:
    from coflex.adapters.cli.settlement_evidence import check_certificates
    from coflex.adapters.cli.settlement_folder import Folder
    from coflex.adapters.cli.verify import read_public

    folder = Folder(place)
    recomputed, findings = _recompute(folder)
    invoices = folder.invoices
    findings += _compare(invoices, recomputed, folder.billing)
    findings += _forms(place / "invoices", invoices)
    deliveries = [one for past in folder.past for one in past.inputs.deliveries]
    findings += check_certificates(place, deliveries, None if key is None else read_public(key))
    if findings:
        raise _Different(findings)
    certified = sum(any((place / name).is_file() for name in one.evidence.certificates) for one in deliveries)
    lines = sum(len(one.lines) for one in recomputed)
    return Verified(len(recomputed), lines, len(invoices), certified)


class _Different(Refused):
    """Evidence and invoices do not agree; findings stay in the order in which they were met."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("Settlement", findings)
        self.findings = tuple(dict.fromkeys(findings))
        first = self.findings[0]
        count = len(self.findings)
        self.message = f"{count} difference{'s' * (count != 1)} between the evidence and what was billed."
        self.remedy = f"The first: {first.place}."


def _recompute(folder: Folder) -> tuple[list[Run], list[Finding]]:
    """Every run anew from its own inputs, on what the runs before it posted; and where that is not what was kept."""
    from coflex.adapters.cli.settlement_folder import tables
    from coflex.settlement.books import correct
    from coflex.settlement.charges import settle
    from coflex.settlement.verify import run_differences

    runs: list[Run] = []
    findings: list[Finding] = []
    posted: list[Line] = []
    for one in folder.past:
        made = correct(posted, settle(one.inputs, one.rules), one.inputs.period)
        findings += run_differences(f"run {one.number}", one.lines, made.lines)
        kept = folder.tables(one.number)
        told = tables(made, one.inputs, one.rules) if kept else {}
        message = "It does not say what the lines of the run say; go by these, or ask who settled."
        findings += [
            Finding(f"run {one.number}: {name}", "form_differs", message) for name in kept if kept[name] != told[name]
        ]
        runs.append(made)
        posted += made.lines
    return runs, findings


def _compare(invoices: Sequence[Invoice], runs: Sequence[Run], billing: frozenset[str]) -> list[Finding]:
    """Every invoice against the run whose lines it bills, and lines that nobody billed although others were, or that
    were billed twice."""
    from coflex.settlement.verify import billed_twice, differences, not_billed

    findings: list[Finding] = []
    of_run: list[list[Invoice]] = [[] for _ in runs]
    for one in sorted(invoices, key=lambda each: (each.issued, each.number)):
        own = {line.charge.id for line in one.lines}
        fits = [len(own & {line.charge.id for line in run.lines}) for run in runs]
        place = max(range(len(runs)), key=lambda i: fits[i], default=None)
        if place is None:
            findings.append(Finding(f"invoice {one.number}", "no_run", "There is no run in this folder; give it too."))
            continue
        of_run[place].append(one)
        findings += differences(one, runs[place].lines)
    for run, mine in zip(runs, of_run, strict=True):
        findings += billed_twice(mine)
        findings += not_billed(mine, run.lines, billing) if mine else ()
    return findings


def _forms(place: Path, invoices: Sequence[Invoice]) -> list[Finding]:
    """Forms beside an invoice that do not say what it says. A PDF's bytes hang on the library that packed them, so it
    is not among them."""
    findings: list[Finding] = []
    for one in invoices:
        for ending, form in forms(one).items():
            file = place / f"{one.number}.{ending}"
            if ending != "pdf" and file.is_file() and file.read_bytes() != form:
                message = f"It does not say what {one.number}.json says; go by the JSON, or ask the seller."
                findings.append(Finding(f"{file.name}", "form_differs", message))
    return findings


@settlements.command(short_help="What a line stands on and what became of it.")
def trail(
    ctx: typer.Context,
    folder: Here,
    line: Annotated[str, typer.Argument(metavar="LINE", help="Id of the line, or a part that only it has.")],
    as_json: Json = False,
) -> None:
    """The trail of a line: offer, award, set point, baseline, measurement, certificates, rule, booking, invoice.

    Example: coflex settlement trail november "local-1|d0001|aw-1|activation|sp|dso"
    """
    with application(ctx, as_json):
        from coflex.adapters.cli.settlement_folder import Folder
        from coflex.settlement.trail import trail as steps

        here = Folder(folder)
        found = _line(here, line)
        number = next((one.number for one in here.invoices if found in one.lines), "")
        told = steps(found, number)
        if as_json:
            screen.put_json({"line": found.charge.id, "steps": [{one.step: one.name} for one in told]})
        else:
            screen.put_table(f"trail of {found.charge.id}", [(one.step, one.name or "-") for one in told])


def _line(folder: Folder, given: str) -> Line:
    lines = folder.posted
    found = [one for one in lines if one.charge.id == given] or [one for one in lines if given in one.charge.id]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(f"There is no line {given}.", "The ids stand in runs/0001/lines.json and in the invoices' CSV.")
    some = ", ".join(one.charge.id for one in found[:3])
    raise CoflexError(f"{len(found)} lines have '{given}' in their id: {some}.", "Give the whole id.")


@settlements.command(short_help="Contest a line.")
def dispute(
    ctx: typer.Context,
    folder: Here,
    line: Annotated[str, typer.Argument(metavar="LINE", help="Id of the line, or a part that only it has.")],
    name: Annotated[str, typer.Option("--id", help="A name for the dispute.")],
    party: Annotated[str, typer.Option("--party", help="Who contests it: the line's seller or customer.")],
    at: Instant,
    reason: Reason,
    as_json: Json = False,
) -> None:
    """Contest a line; nothing is posted until it is decided.

    Example: coflex settlement dispute november aw-1 --id d7 --party sp --at 2026-12-07T09:00:00Z --reason "wrong meter"
    """
    with application(ctx, as_json):
        from coflex.adapters.cli.settlement_folder import Folder
        from coflex.settlement.dispute import open_dispute

        here = Folder(folder)
        opened = open_dispute(name, _line(here, line), party, at, reason)
        here.put_dispute(opened, new=True)
        _tell(Contested(opened.id, opened.line, opened.state, 0), as_json)


@settlements.command(short_help="Decide a dispute with new inputs, or withdraw it.")
def decide(
    ctx: typer.Context,
    folder: Here,
    name: Annotated[str, typer.Argument(metavar="DISPUTE", help="Id of the dispute.")],
    by: Annotated[str, typer.Option("--by", help="Who decides.")],
    at: Instant,
    reason: Reason,
    changes: Annotated[
        list[str] | None,
        typer.Option("--change", metavar="FIELD=VALUE", help="A new input, as measured_kwh=-24.5; may be repeated."),
    ] = None,
    source: Annotated[str, typer.Option("--source", help="Where the new inputs come from.")] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="The party takes it back.")] = False,
    as_json: Json = False,
) -> None:
    """Settle the contested line's delivery anew with the changes and keep both settlements; without a change that
    counts, the line is upheld. What changed is in the folder's inputs then, and the next run posts the difference.

    Example: coflex settlement decide november d7 --by mo --at 2026-12-09T09:00:00Z --reason "protocol of the swap"
    --change measured_kwh=-20 --source protocol-12
    """
    with application(ctx, as_json):
        given = [_change(one, source) for one in changes or []]
        _tell(_decide(folder, name, by, at, reason, given, withdraw), as_json)


def _decide(
    place: Path, name: str, by: str, at: datetime, reason: str, changes: Sequence[Change], back: bool
) -> Contested:
    from coflex.adapters.cli.settlement_folder import Folder
    from coflex.settlement import dispute as disputes
    from coflex.settlement.books import accounts
    from coflex.settlement.shelf import read_rules

    folder = Folder(place)
    contested = folder.dispute(name)
    if back:
        withdrawn = disputes.withdraw(contested, at, reason)
        folder.put_dispute(withdrawn, new=False)
        return Contested(withdrawn.id, withdrawn.line, withdrawn.state, 0)
    inputs = folder.inputs
    rules = read_rules(folder.rule_texts(one.rule for one in inputs.deliveries))
    decided, after = disputes.decide(contested, inputs, rules, changes, at, by, reason)
    cents = 0
    if decided.state is disputes.State.CHANGED:
        from coflex.settlement.charges import settle

        posted = disputes.difference(decided, folder.posted, settle(inputs, rules), inputs.period)
        seller = next(line.charge.seller for line in folder.posted if line.charge.root == decided.line)
        cents = sum(one.balance_cents for one in accounts(posted.lines, inputs.period) if one.party == seller)
    folder.put_dispute(decided, new=False, inputs=after if decided.state is disputes.State.CHANGED else None)
    return Contested(decided.id, decided.line, decided.state, cents)


def _change(given: str, source: str) -> Change:
    from coflex.settlement.dispute import Change

    name, equals, value = given.partition("=")
    if not equals:
        raise CoflexError(f"'{given}' is no change.", "Write it as measured_kwh=-24.5.")
    return Change(name.strip(), value.strip() or None, source)


def _tell(answer: Contested, as_json: bool) -> None:
    if as_json:
        screen.put_json(answer)
    else:
        screen.put_table("settlement dispute", screen.facts(answer))


def _euros(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"
