"""What the targets in tests/fuzz found, case by case; and the targets themselves on their seeds, without a fuzzer."""

from __future__ import annotations

import importlib
from pathlib import Path
from random import Random
from typing import Any

import pytest

from coflex.adapters.exchange.tables.units_import import COLUMNS, read_units
from coflex.adapters.web.api.paging import page_of
from coflex.adapters.web.api.problems import NotSignedIn
from coflex.adapters.web.identity.known import presented
from coflex.domain.errors import Forbidden, Refused
from fuzz import fuzz_body, fuzz_credentials, fuzz_cursor, fuzz_forms, fuzz_units

FOLDER = Path(__file__).parents[1] / "fuzz"
TARGETS = sorted(file.stem for file in FOLDER.glob("fuzz_*.py"))
CASES = sorted(file for file in (FOLDER / "cases").glob("fuzz_*-*"))
HEADER = list(COLUMNS)
UNIT = fuzz_units.SEEDS[5].decode().removeprefix("h").partition("\n")[0].split(";")


# A form with many fields, whose writing a target can find wrong.
WHOLE_FORM = next(one for one in fuzz_forms.SEEDS[3:] if fuzz_forms.NAMES[one[0]] == "activation.fail")


def another(name: str) -> list[str]:
    return [name, *UNIT[1:]]


# ---------------------------------------------------------------- the targets do not rot


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_finds_nothing_in_its_seeds(name: str) -> None:
    target: Any = importlib.import_module(f"fuzz.{name}")
    assert len(target.SEEDS) > 10
    for seed in target.SEEDS:
        target.check(seed)


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.name)
def test_what_a_target_found_once_stands(file: Path) -> None:
    target: Any = importlib.import_module(f"fuzz.{file.name.partition('-')[0]}")
    target.check(file.read_bytes())


def test_forms_that_are_changed_at_random_find_nothing() -> None:
    chance, kept = Random(5), list(fuzz_forms.SEEDS[3:])
    made = (fuzz_forms.mutated(chance.choice(kept), chance) for _ in range(400))
    for data in made:
        if data is not None:
            kept.append(data)
            fuzz_forms.check(data)
    assert len(kept) > 500


@pytest.mark.parametrize(
    ("target", "data", "reader", "wrong"),
    [
        (fuzz_body, b"[1, 2", "read_body", lambda data, most=0: data),
        (fuzz_cursor, b"limit=3", "page_of", lambda asked, rows: page_of(asked, rows[:-1])),
        (fuzz_units, fuzz_units.SEEDS[5], "read_units", lambda name, data: read_units(name, data)[:1]),
        (fuzz_credentials, b"x-api-key: cf_", "presented", lambda headers: (b"cf_x", b"")),
        (fuzz_forms, WHOLE_FORM, "encode", lambda form: b"{}"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_target_notices_what_is_wrong(
    target: Any, data: bytes, reader: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put in the place of the product: one that takes anything, cuts something off, or reads something else."""
    target.check(data)
    monkeypatch.setattr(target, reader, wrong)
    with pytest.raises((AssertionError, Refused)):
        target.check(data)


# ---------------------------------------------------------------- tables of units


@pytest.mark.spec("REG-02")
@pytest.mark.parametrize("said", ["", "A1", "A1:B2", "A1:AD2", "A1:AD3", "A1:ZZ9999"])
def test_every_row_of_a_workbook_is_read_whatever_the_workbook_says_of_its_size(said: str) -> None:
    """Programs that write workbooks row by row say it wrongly, or not at all; rows below were left out in silence."""
    data = fuzz_units.as_workbook([HEADER, UNIT, another("u2"), another("u3")], said)
    assert [row.id for row in read_units("units.xlsx", data)] == ["u1", "u2", "u3"]


def test_a_row_with_a_high_number_costs_nothing() -> None:
    """Rows between were made one by one, so a number of twelve digits kept a thread for months."""
    high = fuzz_units.sheet([HEADER, UNIT, another("u2")]).replace('<row r="3">', '<row r="1048576">')
    assert _quickly(high) in (["u1", "u2"], None)


@pytest.mark.parametrize("filler", ["<row/>" * 600_000, f"<row>{'<c/>' * 600_000}</row>"], ids=["rows", "cells"])
def test_a_small_file_that_unfolds_to_many_empty_cells_costs_nothing(filler: str) -> None:
    """Some kB of a compressed workbook cost seconds for every 100,000 of them."""
    many = fuzz_units.sheet([HEADER, UNIT]).replace("</sheetData>", f"{filler}</sheetData>")
    assert _quickly(many) in (["u1"], None)


def _quickly(sheet: str) -> list[str] | None:
    """Units of a sheet, None where it is refused before its emptiness is read."""
    try:
        return [row.id for row in read_units("units.xlsx", fuzz_units.workbook(sheet))]
    except Refused as refused:
        assert {one.code for one in refused.findings} <= {"too_long", "too_large"}
        return None


# ---------------------------------------------------------------- credentials


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize("sign", "-.~ xW0\x7f")
def test_an_api_key_is_taken_as_it_was_given_and_in_no_other_way(sign: str) -> None:
    """The sign between client and secret was not looked at."""
    client, _, secret = fuzz_credentials.key_of("sp-1").decode().rpartition("_")
    headers = [(b"x-api-key", f"{client}{sign}{secret}".encode())]
    with pytest.raises(NotSignedIn):
        fuzz_credentials.identity().caller("demo", headers, fuzz_credentials.AT)


@pytest.mark.parametrize("values", [(b"", b"sp-1"), (b"sp-1", b""), (b"", b""), (b"sp-1", b"sp-1")])
def test_the_party_to_act_for_is_named_once(values: tuple[bytes, ...]) -> None:
    """An empty name and another after it were taken, in the other order they were refused."""
    key = (b"authorization", b"Bearer " + fuzz_credentials.key_of("mo"))
    with pytest.raises(Forbidden):
        presented([key, *((b"on-behalf-of", value) for value in values)])
