"""Invoices as UBL 2.1 (ISO/IEC 19845) after the European norm EN 16931; with electronic addresses of both, as Peppol
BIS Billing 3.0.

One position is one line. Its quantity is one piece, and minus one where the position is below zero, so that no price is
negative (BR-27) and price times quantity is the amount to the cent; MWh and MW h are told in the line's note.
"""

from __future__ import annotations

from datetime import UTC, date, timedelta
from xml.etree import ElementTree

from coflex.reporting.invoice import quantity
from coflex.settlement.invoice import Category, Details, Invoice, Kind, Position, Tax, days_of

CAC = "urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2"
CBC = "urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2"
ROOT = "urn:oasis:names:specification:ubl:schema:xsd:{}-2"
NORM = "urn:cen.eu:en16931:2017"
PEPPOL = "#compliant#urn:fdc:peppol.eu:2017:poacc:billing:3.0"
PROFILE = "urn:fdc:peppol.eu:2017:poacc:billing:01:1.0"
EXEMPTION = {Category.REVERSE: "VATEX-EU-AE", Category.OUTSIDE: "VATEX-EU-O"}
CREDIT_TRANSFER, PIECE = "30", "C62"

_Element = ElementTree.Element
for _prefix, _space in (("cac", CAC), ("cbc", CBC), ("inv", ROOT.format("Invoice")), ("cn", ROOT.format("CreditNote"))):
    ElementTree.register_namespace(_prefix, _space)


def invoice_ubl(invoice: Invoice) -> bytes:
    """The document as UTF-8 XML: root Invoice (type 380) or CreditNote (type 381). Same invoice, same bytes."""
    name = "Invoice" if invoice.kind is Kind.INVOICE else "CreditNote"
    root = _Element(f"{{{ROOT.format(name)}}}{name}")
    _head(root, invoice)
    for role, party in (("AccountingSupplierParty", invoice.seller), ("AccountingCustomerParty", invoice.customer)):
        _party(_part(root, role), party, invoice.tax)
    _means(root, invoice)
    _taxes(root, invoice)
    _totals(root, invoice)
    for position in invoice.positions:
        _line(root, invoice, position)
    ElementTree.indent(root, " ")
    text: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return text + b"\n"


def _head(root: _Element, invoice: Invoice) -> None:
    peppol = bool(invoice.seller.endpoint and invoice.customer.endpoint)
    _text(root, "CustomizationID", NORM + (PEPPOL if peppol else ""))
    if peppol:
        _text(root, "ProfileID", PROFILE)
    _text(root, "ID", invoice.number)
    _text(root, "IssueDate", invoice.issued.isoformat())
    if invoice.kind is Kind.INVOICE:
        _text(root, "DueDate", invoice.due.isoformat())
        _text(root, "InvoiceTypeCode", "380")
    else:
        _text(root, "CreditNoteTypeCode", "381")
    _text(root, "DocumentCurrencyCode", "EUR")
    _text(root, "BuyerReference", invoice.period)
    days = days_of(invoice.period) or _days_of_lines(invoice)
    if days is not None:
        period = _part(root, "InvoicePeriod")
        _text(period, "StartDate", days[0].isoformat())
        _text(period, "EndDate", days[1].isoformat())
    for number in invoice.corrects:
        _text(_part(_part(root, "BillingReference"), "InvoiceDocumentReference"), "ID", number)


def _days_of_lines(invoice: Invoice) -> tuple[date, date] | None:
    """The first and the last day, in UTC, of the lines of an invoice whose period has a name of its own."""
    if not invoice.lines:
        return None
    first = min(line.charge.start for line in invoice.lines)
    last = max(line.charge.start + timedelta(minutes=line.charge.minutes) for line in invoice.lines)
    return first.astimezone(UTC).date(), (last - timedelta(microseconds=1)).astimezone(UTC).date()


def _party(role: _Element, details: Details, tax: Tax) -> None:
    party = _part(role, "Party")
    if details.endpoint:
        scheme, _, address = details.endpoint.partition(":")
        _text(party, "EndpointID", address, schemeID=scheme)
    _text(_part(party, "PartyIdentification"), "ID", details.id)
    _text(_part(party, "PartyName"), "Name", details.name)
    postal = _part(party, "PostalAddress")
    for name, value in (("StreetName", details.street), ("CityName", details.city), ("PostalZone", details.postcode)):
        if value:
            _text(postal, name, value)
    _text(_part(postal, "Country"), "IdentificationCode", details.country)
    if details.vat_id and tax.category is not Category.OUTSIDE:
        scheme_of = _part(party, "PartyTaxScheme")
        _text(scheme_of, "CompanyID", details.vat_id)
        _text(_part(scheme_of, "TaxScheme"), "ID", "VAT")
    _text(_part(party, "PartyLegalEntity"), "RegistrationName", details.name)


def _means(root: _Element, invoice: Invoice) -> None:
    """The account to pay into; a credit note is paid back to the customer's."""
    payee = invoice.seller if invoice.kind is Kind.INVOICE else invoice.customer
    if payee.iban:
        means = _part(root, "PaymentMeans")
        _text(means, "PaymentMeansCode", CREDIT_TRANSFER)
        _text(_part(means, "PayeeFinancialAccount"), "ID", payee.iban.replace(" ", ""))
    if invoice.kind is Kind.CREDIT_NOTE:  # which has no date of payment of its own
        _text(_part(root, "PaymentTerms"), "Note", f"To be paid back by {invoice.due.isoformat()}")


def _taxes(root: _Element, invoice: Invoice) -> None:
    total = _part(root, "TaxTotal")
    _money(total, "TaxAmount", invoice.tax_cents)
    part = _part(total, "TaxSubtotal")
    _money(part, "TaxableAmount", invoice.net_cents)
    _money(part, "TaxAmount", invoice.tax_cents)
    category = _category(part, "TaxCategory", invoice.tax)
    if invoice.tax.category in EXEMPTION:
        scheme = category[-1]
        category.remove(scheme)
        _text(category, "TaxExemptionReasonCode", EXEMPTION[invoice.tax.category])
        _text(category, "TaxExemptionReason", invoice.tax.note)
        category.append(scheme)


def _totals(root: _Element, invoice: Invoice) -> None:
    totals = _part(root, "LegalMonetaryTotal")
    _money(totals, "LineExtensionAmount", invoice.net_cents)
    _money(totals, "TaxExclusiveAmount", invoice.net_cents)
    _money(totals, "TaxInclusiveAmount", invoice.gross_cents)
    _money(totals, "PayableAmount", invoice.gross_cents)


def _line(root: _Element, invoice: Invoice, position: Position) -> None:
    name = "Invoiced" if invoice.kind is Kind.INVOICE else "Credited"
    line = _part(root, "InvoiceLine" if invoice.kind is Kind.INVOICE else "CreditNoteLine")
    _text(line, "ID", str(position.number))
    counted = quantity(position)
    note = f"{position.lines} line{'s' * (position.lines != 1)}" + (f", {counted}" if counted else "")
    _text(line, "Note", note)
    _text(line, f"{name}Quantity", "-1" if position.cents < 0 else "1", unitCode=PIECE)
    _money(line, "LineExtensionAmount", position.cents)
    item = _part(line, "Item")
    _text(item, "Name", position.text)
    _category(item, "ClassifiedTaxCategory", invoice.tax)
    _money(_part(line, "Price"), "PriceAmount", abs(position.cents))


def _category(parent: _Element, name: str, tax: Tax) -> _Element:
    category = _part(parent, name)
    _text(category, "ID", tax.category.value)
    if tax.category is not Category.OUTSIDE:
        _text(category, "Percent", f"{tax.percent.normalize():f}")
    _text(_part(category, "TaxScheme"), "ID", "VAT")
    return category


def _part(parent: _Element, name: str) -> _Element:
    return ElementTree.SubElement(parent, f"{{{CAC}}}{name}")


def _text(parent: _Element, name: str, text: str, **attributes: str) -> None:
    ElementTree.SubElement(parent, f"{{{CBC}}}{name}", attributes).text = text


def _money(parent: _Element, name: str, cents: int) -> None:
    whole, rest = divmod(abs(cents), 100)
    _text(parent, name, f"{'-' if cents < 0 else ''}{whole}.{rest:02}", currencyID="EUR")
