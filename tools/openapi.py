"""Writes docs/openapi.json, and the tables of docs/api.md, from the code.

`python tools/openapi.py` writes both; `tests/adapters/test_api_document.py` fails when one of them is stale.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.adapters.web.api.app import create_app
from coflex.adapters.web.api.body import MOST_BYTES, MOST_DIGITS, MOST_LEVELS, MOST_NUMBER
from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.incoming import MOST_BYTES_AT_ONCE
from coflex.adapters.web.api.problems import TABLE
from coflex.adapters.web.api.rooms.resources import CSV, WORKBOOK
from coflex.adapters.web.identity import Accounts, Identity, Keys, Passwords
from coflex.domain.party import Role
from coflex.service.machine import Machine
from coflex.service.sequencer import Sequencer
from coflex.service.verbs import VERBS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "openapi.json"
PAGE = ROOT / "docs" / "api.md"
RIGHTS = ROOT / "docs" / "rights.csv"


def document() -> dict[str, Any]:
    """The OpenAPI document of an empty platform: that of every platform."""
    with TemporaryDirectory() as folder:
        machine, journal = Machine(VERBS), MemoryJournal()
        keys = Keys(Path(folder) / "keys.json", _clock())
        identity = Identity(machine, _clock, keys, "http://localhost")
        desk = Desk(machine, Sequencer(machine, journal, _clock), journal, _clock, identity.authenticate)
        app = create_app(desk, Accounts(keys, Passwords()), dict.fromkeys((CSV, WORKBOOK), _no_rows))
        return dict(app.state.about.document)


def _clock() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def _no_rows(raw: bytes) -> tuple[()]:
    return ()


def document_text(made: dict[str, Any] | None = None) -> str:
    """The document as its file holds it."""
    return json.dumps(document() if made is None else made, indent=1, ensure_ascii=False) + "\n"


def page_text(page: str, made: dict[str, Any] | None = None) -> str:
    """The page with its tables written anew between their marks. Raises ValueError where a mark is missing."""
    made = document() if made is None else made
    parts = (("problems", problems()), ("limits", limits()), ("operations", operations(made)))
    for name, lines in parts:
        begin, end = f"<!-- {name}: written by tools/openapi.py -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"docs/api.md lacks the marks of its {name}.")
        page = f"{before}{begin}\n" + "\n".join(lines) + f"\n\n{end}{after}"
    return page


def problems() -> Iterator[str]:
    """A row for each code of a problem document."""
    yield "| status | code | what | ask again as it is |"
    yield "| --- | --- | --- | --- |"
    for code, kind in sorted(TABLE.items(), key=lambda row: (row[1].status, row[0])):
        yield f"| {kind.status} | `{code}` | {kind.title} | {'yes, after `Retry-After`' if kind.retry else 'no'} |"


def limits() -> Iterator[str]:
    """The limits of bodies."""
    yield "| what | limit |"
    yield "| --- | --- |"
    yield f"| body | {MOST_BYTES >> 20} MiB; tables of units and measured answers {MOST_BYTES_AT_ONCE >> 20} MiB |"
    yield f"| levels of lists and objects | {MOST_LEVELS} |"
    yield f"| numbers | {MOST_DIGITS} digits, at most {MOST_NUMBER:.0e}; no NaN, no infinity |"
    yield "| keys of an object | each once |"
    yield "| text | UTF-8, no NUL character, no half of a surrogate pair |"


def operations(made: dict[str, Any]) -> Iterator[str]:
    """A row for each operation, by topic, with the roles that may ask for it."""
    with RIGHTS.open(encoding="utf-8", newline="") as file:
        rights = {row.pop("operation"): row for row in csv.DictReader(file)}
    for tag in made["tags"]:
        yield f"**{tag['name'].capitalize()}.** {tag['description']}"
        yield ""
        yield "| operation | what | who |"
        yield "| --- | --- | --- |"
        for path, methods in made["paths"].items():
            for method, told in methods.items():
                if tag["name"] in told["tags"]:
                    who = _who(rights.get(told["operationId"]))
                    yield f"| `{method.upper()} {path.removeprefix('/v1/{tenant}')}` | {told['summary']} | {who} |"
        yield ""


def _who(cells: dict[str, str] | None) -> str:
    """Who may, from a row of the table of rights."""
    if cells is None:
        return "see the text"
    may = {Role(role): cell for role, cell in cells.items() if cell}
    if len(may) == len(Role) and len(set(may.values())) == 1:
        return "every party" if set(may.values()) == {"any"} else "every party, its own"
    return ", ".join(_SHORT[role] + (" (own)" if cell == "own" else "") for role, cell in may.items())


_SHORT = {
    Role.TSO: "TSO",
    Role.DSO: "DSO",
    Role.MARKET_OPERATOR: "market operator",
    Role.SERVICE_PROVIDER: "provider",
    Role.BALANCE_RESPONSIBLE_PARTY: "BRP",
    Role.METERED_DATA_ADMINISTRATOR: "data administrator",
    Role.REGISTER_OPERATOR: "register operator",
    Role.ASSET_OWNER: "owner",
    Role.OBSERVER: "observer",
}


if __name__ == "__main__":
    made = document()
    DOCUMENT.write_text(document_text(made), encoding="utf-8")
    PAGE.write_text(page_text(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
