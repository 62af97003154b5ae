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
from coflex.service.machine import Machine, encode
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
        made: dict[str, Any] = json.loads(encode(app.state.about.document))
        return made


def _clock() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def _no_rows(raw: bytes) -> tuple[()]:
    return ()


def document_text(made: dict[str, Any] | None = None) -> str:
    """The document as its file holds it: a line for each operation and each schema."""
    return _laid_out(document() if made is None else made, 3, "") + "\n"


def _laid_out(value: Any, levels: int, indent: str) -> str:
    """JSON with its first levels on lines of their own."""
    if levels == 0 or not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = f",\n{indent} ".join(
        f"{json.dumps(key)}: {_laid_out(one, levels - 1, indent + ' ')}" for key, one in value.items()
    )
    return f"{{\n{indent} {inner}\n{indent}}}"


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Operations and named parts that are in one document alone, or differ; in words, sorted."""
    return sorted(
        f"{name} is {'new' if name not in then else 'gone' if name not in now else 'different'}"
        for then, now in [(_parts(before), _parts(after))]
        for name in then.keys() | now.keys()
        if then.get(name) != now.get(name)
    )


def _parts(made: dict[str, Any]) -> dict[str, Any]:
    found = {name: part for name, part in made.items() if name not in ("paths", "components")}
    for path, methods in made["paths"].items():
        found |= {f"{method.upper()} {path}": told for method, told in methods.items()}
    for kind, parts in made["components"].items():
        found |= {f"{kind} {name}": part for name, part in parts.items()}
    return found


def breaking(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What a client of the document before would miss in the one after, in words, sorted: operations, answers, fields
    of answers, and parameters and fields of bodies that are asked for now. Each needs a new prefix."""
    missing = []
    for path, methods in before["paths"].items():
        for method, told in methods.items():
            now = after["paths"].get(path, {}).get(method)
            name = f"{method.upper()} {path}"
            missing += [f"{name} is gone"] if now is None else [f"{name} {what}" for what in _worse(told, now)]
    for name, schema in before["components"]["schemas"].items():
        now = after["components"]["schemas"].get(name)
        if now is not None:
            missing += [f"{name} {what}" for what in _narrower(schema, now)]
    return sorted(missing)


def _worse(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for status in before["responses"]:
        if status.startswith("2") and status not in after["responses"]:
            yield f"answers {status} no more"
    had = {(one["in"], one["name"]) for one in before.get("parameters", ())}
    needed = {(one["in"], one["name"]) for one in before.get("parameters", ()) if one["required"]}
    now = {(one["in"], one["name"]): one["required"] for one in after.get("parameters", ())}
    for place, name in sorted(had - now.keys()):
        yield f"knows {name} in the {place} no more"
    for place, name in sorted({one for one, required in now.items() if required} - needed):
        yield f"asks for {name} in the {place}"


def _narrower(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for field in sorted(before.get("properties", {}).keys() - after.get("properties", {}).keys()):
        yield f"has lost '{field}'"
    for field in sorted(set(after.get("required", ())) - set(before.get("required", ()))):
        yield f"asks for '{field}'"
    for word in sorted(set(map(str, before.get("enum", ()))) - set(map(str, after.get("enum", ())))):
        yield f"knows the word '{word}' no more"


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
    every = [_SHORT[role] for role, cell in may.items() if cell == "any"]
    if len(may) == len(Role):
        if len(every) == len(Role):
            return "every party"
        return "every party (own)" + "".join(f"; {role}" for role in every)
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
