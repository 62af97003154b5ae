"""Invoices as PDF (reportlab): the same words and sums as the page of HTML, on A4.

Letters are those of the PDF standard fonts (Windows Latin 1: Western Europe); others are written without their marks,
or as a question mark where nothing is left. HTML and UBL carry every letter.
"""

from __future__ import annotations

import io
import unicodedata
from typing import Any
from xml.sax.saxutils import escape

from coflex.reporting.invoice import TITLES, address, facts, money, quantity, sums
from coflex.settlement.invoice import Invoice

INK, SOFT, ACCENT, LINE = "#1b2430", "#5c6875", "#0b5c6b", "#d5dbe1"
WIDTHS_MM = (10, 84, 15, 32, 33)


def invoice_pdf(invoice: Invoice) -> bytes:
    """The invoice on as many A4 pages as it needs, its number on each. Same invoice, same bytes."""
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.platypus import SimpleDocTemplate, Spacer

    out = io.BytesIO()
    title = f"{TITLES[invoice.kind]} {invoice.number}"
    document = SimpleDocTemplate(
        out, pagesize=A4, invariant=1, title=title, author=invoice.seller.name, producer="coflex",
        leftMargin=18 * mm, rightMargin=18 * mm, topMargin=18 * mm, bottomMargin=20 * mm,
    )  # fmt: skip
    story = [_head(invoice), Spacer(1, 10 * mm), _parties(invoice), Spacer(1, 8 * mm), _positions(invoice)]
    story += [Spacer(1, 6 * mm), _table([[note] for note in _notes(invoice)], (174,))]

    def foot(canvas: Any, page: Any) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.setFillColor(SOFT)
        canvas.drawRightString(A4[0] - 18 * mm, 11 * mm, f"{_latin(title)}, page {page.page}")

    document.build(story, onFirstPage=foot, onLaterPages=foot)
    return out.getvalue()


def _style(size: float = 9.5, bold: bool = False, right: bool = False, color: str = INK) -> Any:
    from reportlab.lib.colors import HexColor
    from reportlab.lib.enums import TA_LEFT, TA_RIGHT
    from reportlab.lib.styles import ParagraphStyle

    return ParagraphStyle(
        name=f"{size}{bold}{right}{color}",
        fontName="Helvetica-Bold" if bold else "Helvetica",
        fontSize=size,
        leading=size * 1.32,
        alignment=TA_RIGHT if right else TA_LEFT,
        textColor=HexColor(color),
    )


def _text(text: str, **style: Any) -> Any:
    from reportlab.platypus import Paragraph

    return Paragraph(escape(_latin(text)), _style(**style))


def _stack(lines: tuple[str, ...], right: bool = False) -> list[Any]:
    return [_text(line, bold=i == 0, right=right) for i, line in enumerate(lines)]


def _table(rows: list[list[Any]], widths: tuple[float, ...], *styles: Any, repeat: int = 0) -> Any:
    from reportlab.lib.units import mm
    from reportlab.platypus import Table

    plain = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 2),
        ("TOPPADDING", (0, 0), (-1, -1), 2.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
    ]
    return Table(rows, colWidths=[width * mm for width in widths], style=[*plain, *styles], repeatRows=repeat)


def _head(invoice: Invoice) -> Any:
    title = _text(TITLES[invoice.kind], size=20, bold=True, color=ACCENT)
    return _table([[title, _stack(address(invoice.seller), right=True)]], (80, 94))


def _parties(invoice: Invoice) -> Any:
    rows = [[_text(name, color=SOFT), _text(value, right=True)] for name, value in facts(invoice)]
    told = _table(rows, (32, 62), ("TOPPADDING", (0, 0), (-1, -1), 0), ("BOTTOMPADDING", (0, 0), (-1, -1), 1))
    to = [_text("To", size=8.5, color=SOFT), *_stack(address(invoice.customer))]
    return _table([[to, told]], (80, 94))


def _positions(invoice: Invoice) -> Any:
    from reportlab.lib.colors import HexColor

    names = ("No.", "What", "Lines", "Quantity", "Amount, EUR")
    rows = [[_text(name, size=8.5, bold=True, right=i > 1, color=SOFT) for i, name in enumerate(names)]]
    for one in invoice.positions:
        text = one.text + (f" (billed on {', '.join(one.corrects)})" if one.corrects else "")
        cells = (str(one.number), text, str(one.lines), quantity(one), money(one.cents))
        rows.append([_text(cell, right=i > 1) for i, cell in enumerate(cells)])
    body = len(rows)
    told = sums(invoice)
    for i, (name, value) in enumerate(told):
        last = i == len(told) - 1
        rows.append(["", _text(name, right=True, bold=last), "", "", _text(value, right=True, bold=last)])
    return _table(
        rows, WIDTHS_MM,
        ("LINEBELOW", (0, 0), (-1, 0), 1.2, HexColor(INK)),
        *((("LINEBELOW", (0, 1), (-1, body - 1), 0.4, HexColor(LINE)),) if body > 1 else ()),
        ("LINEABOVE", (0, -1), (-1, -1), 1.2, HexColor(INK)),
        *(("SPAN", (1, row), (3, row)) for row in range(body, len(rows))),
        repeat=1,
    )  # fmt: skip


def _notes(invoice: Invoice) -> list[Any]:
    notes = [invoice.tax.note + "."] if invoice.tax.note else []
    notes.append(
        "Each position is the sum of its lines, rounded once. The table of lines that comes with this document names "
        "for each the award, set point, baseline and measurements it stands on; anyone who has them recomputes it "
        "with: coflex settlement verify."
    )
    return [_text(note, size=8.5, color=SOFT) for note in notes]


def _latin(text: str) -> str:
    """The text in letters that the standard fonts have."""
    plain = text.replace("\u2212", "-").replace("\u202f", "\u00a0")
    return "".join(_letter(letter) for letter in plain)


def _letter(letter: str) -> str:
    for form in (letter, unicodedata.normalize("NFKD", letter)):
        known = form.encode("cp1252", "ignore").decode("cp1252")
        if known:
            return known
    return "?"
