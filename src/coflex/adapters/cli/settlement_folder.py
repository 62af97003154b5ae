"""A settlement as a folder of files: what it is made from, every run, every invoice, every dispute.

inputs.json                    deliveries, contracts, shared purchases; what the next run settles
parties.json                   names, addresses and tax of those who are invoiced
rules/ID.yaml                  rules of one's own; the others are those that come with coflex
certificates/*.json            certificates that the evidence of deliveries names
runs/0001/                     a run: the inputs and rules it had, its lines, accounts and adjustments
invoices/NUMBER.json           an invoice, with its forms .html .pdf .csv .xml beside it
disputes/ID.json               a dispute with its history
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from coflex.domain.errors import CoflexError, Finding, NotReady, Refused
from coflex.domain.statement import Account, Line
from coflex.settlement.books import Run
from coflex.settlement.dispute import Dispute
from coflex.settlement.document import Rule
from coflex.settlement.inputs import Inputs
from coflex.settlement.invoice import Invoice
from coflex.settlement.records import Lines, Parties, read, write
from coflex.settlement.shelf import read_rules, rule_text, rules
from coflex.settlement.transfer import Adjustment, adjustments

T = TypeVar("T")
TABLES = ("accounts.csv", "adjustments.csv")  # of a run, beside its lines
MOST_BYTES = 1 << 30  # of one file, so that a wrong path does not fill the memory


def text_of(file: Path) -> str:
    """A file's text. Raises Refused when it is none, CoflexError when it is beyond all measure."""
    if file.stat().st_size > MOST_BYTES:
        raise CoflexError(f"The file {file} is larger than 1 GiB.", "Settle a shorter period.")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        finding = Finding(str(file), "not_text", "The file holds bytes that are no UTF-8 text; save it as UTF-8.")
        raise Refused(str(file), [finding]) from None


@dataclass(frozen=True, slots=True)
class Past:
    """A run of the folder: its number, what it was made from, and what it posted."""

    number: int
    inputs: Inputs
    rules: Mapping[str, Rule]
    lines: tuple[Line, ...]


class Folder:
    """A settlement's folder. Reading raises Refused with every fault of a file, NotReady where one is missing."""

    def __init__(self, place: Path) -> None:
        self.place = place

    @property
    def inputs(self) -> Inputs:
        """What the next run settles."""
        return self._read(Inputs, self.place / "inputs.json", "Put the deliveries to be settled there.")

    @property
    def parties(self) -> Parties:
        """Who is invoiced."""
        return self._read(Parties, self.place / "parties.json", "Put names and addresses of all parties there.")

    @cached_property
    def past(self) -> tuple[Past, ...]:
        """All runs, the first first."""
        return tuple(self._past(place) for place in sorted((self.place / "runs").glob("[0-9][0-9][0-9][0-9]")))

    @property
    def posted(self) -> tuple[Line, ...]:
        """The lines of all runs."""
        return tuple(line for one in self.past for line in one.lines)

    @property
    def invoices(self) -> tuple[Invoice, ...]:
        """All invoices, by number."""
        files = sorted((self.place / "invoices").glob("*.json"))
        return tuple(read(Invoice, text_of(file), file.name) for file in files)

    @property
    def billing(self) -> frozenset[str]:
        """Who bills: the parties whose details are here, or, in a folder without any, those who sent an invoice."""
        if (self.place / "parties.json").is_file():
            return frozenset(one.id for one in self.parties.parties)
        return frozenset(one.seller.id for one in self.invoices)

    def tables(self, run: int) -> dict[str, str]:
        """The tables beside the lines of a run, as far as they are there, by the names of their files."""
        files = (self.place / "runs" / f"{run:04}" / name for name in TABLES)
        return {file.name: file.read_bytes().decode("utf-8", "replace") for file in files if file.is_file()}

    def rule_texts(self, wanted: Iterable[str]) -> dict[str, str]:
        """The documents of the rules that are asked for: the folder's own before those of coflex."""
        return {name: self._rule_text(name) for name in sorted(set(wanted))}

    def dispute(self, name: str) -> Dispute:
        """A dispute by its id."""
        return self._read(Dispute, self._dispute_file(name), "See the folder disputes for the ids that there are.")

    def put_run(self, inputs: Inputs, texts: Mapping[str, str], lines: Lines, beside: Mapping[str, str]) -> Path:
        """Keep a run, with all that it was made from; an earlier one is never written over."""
        place = self.place / "runs" / f"{len(self.past) + 1:04}"
        (place / "rules").mkdir(parents=True)
        for name, text in texts.items():
            (place / "rules" / f"{name}.yaml").write_text(text, encoding="utf-8")
        (place / "inputs.json").write_text(write(inputs), encoding="utf-8")
        for name, text in beside.items():
            (place / name).write_text(text, encoding="utf-8", newline="")
        # A run is there once its lines are: they come last, and with them the run is whole.
        _put({place / "lines.json": write(lines)})
        return place

    def invoice_file(self, number: str) -> Path:
        """Where an invoice is to be kept. Raises CoflexError when its number is taken or no name of a file."""
        file = self.place / "invoices" / f"{_file_name(number)}.json"
        if file.exists():
            raise CoflexError(f"There is an invoice {number} already.", "Set 'next_numbers' in parties.json.")
        return file

    def put_invoice(self, invoice: Invoice, forms: Mapping[str, bytes]) -> Path:
        """Keep an invoice and its forms. Raises CoflexError as `invoice_file` does."""
        file = self.invoice_file(invoice.number)
        file.parent.mkdir(exist_ok=True)
        for ending, form in forms.items():
            file.with_suffix(f".{ending}").write_bytes(form)
        _put({file: write(invoice)})
        return file

    def put_dispute(self, dispute: Dispute, new: bool, inputs: Inputs | None = None) -> Path:
        """Keep a dispute, and what the next run settles where its decision changed that. Raises CoflexError when a new
        one's id is taken."""
        file = self._dispute_file(dispute.id)
        file.parent.mkdir(exist_ok=True)
        if new and file.exists():
            raise CoflexError(f"There is a dispute {dispute.id} already.", "Give another id.")
        _put({file: write(dispute)} | ({} if inputs is None else {self.place / "inputs.json": write(inputs)}))
        return file

    def _dispute_file(self, name: str) -> Path:
        return self.place / "disputes" / f"{_file_name(name)}.json"

    def _rule_text(self, name: str) -> str:
        own = self.place / "rules" / f"{_file_name(name)}.yaml"
        if own.is_file():
            return text_of(own)
        if name in rules():
            return rule_text(name)
        known = ", ".join(rules())
        raise CoflexError(f"There is no settlement rule '{name}'.", f"Write {own}, or use one of: {known}.")

    def _past(self, place: Path) -> Past:
        number = int(place.name)
        inputs = self._read(Inputs, place / "inputs.json", "Take the run's folder from where it was written.")
        lines = self._read(Lines, place / "lines.json", "The run was broken off; delete its folder and run again.")
        documents = {file.stem: text_of(file) for file in sorted((place / "rules").glob("*.yaml"))}
        return Past(number, inputs, read_rules(documents), lines.lines)

    def _read(self, kind: type[T], file: Path, remedy: str) -> T:
        if not file.is_file():
            raise NotReady(f"There is no file {file}.", remedy)
        return read(kind, text_of(file), str(file.relative_to(self.place)))


def tables(made: Run, inputs: Inputs, rules: Mapping[str, Rule]) -> dict[str, str]:
    """The tables that are kept beside the lines of a run, by the names of their files."""
    return dict(zip(TABLES, (accounts_csv(made.accounts), adjustments_csv(adjustments(inputs, rules))), strict=True))


def accounts_csv(accounts: Iterable[Account]) -> str:
    """What each party received and paid, by cause, in euros."""
    rows = (
        (one.party, one.period, total.cause, _euros(total.received_cents), _euros(total.paid_cents))
        for one in accounts
        for total in one.totals
    )
    return _csv(("party", "period", "cause", "received_eur", "paid_eur"), rows)


def adjustments_csv(moved: Iterable[Adjustment]) -> str:
    """What is added to the position of each balance responsible party in each settlement period."""
    rows = (
        (one.start.isoformat().replace("+00:00", "Z"), str(one.minutes), one.party, f"{one.energy_kwh.normalize():f}")
        for one in moved
    )
    return _csv(("start", "minutes", "party", "energy_kwh"), rows)


def _csv(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()


def _euros(cents: int) -> str:
    return f"{Decimal(cents) / 100:.2f}"


def _put(texts: Mapping[Path, str]) -> None:
    """Write files whole and together, or none: on a disk that is full, what was there stays."""
    for file, text in texts.items():
        with _beside(file).open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
    for file in texts:
        os.replace(_beside(file), file)


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")


def _file_name(name: str) -> str:
    """A name that is one of a file in its folder. Raises CoflexError otherwise."""
    if not name or name.startswith(".") or set(name) & set('/\\:*?"<>|\0'):
        raise CoflexError(f"'{name}' is no name of a file.", "Use letters, digits, hyphens and underscores.")
    return name


def unbilled(past: Iterable[Past], invoices: Iterable[Invoice]) -> Iterator[tuple[Past, tuple[Line, ...]]]:
    """The lines of each run that no invoice holds."""
    known = {line.charge.id for invoice in invoices for line in invoice.lines}
    for one in past:
        yield one, tuple(line for line in one.lines if line.charge.id not in known)
