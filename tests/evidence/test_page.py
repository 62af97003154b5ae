"""What docs/evidence.md says: its program checks certificates as coflex does, with nothing of ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coflex.evidence import certificate
from coflex.evidence.checkpoint import NoteSigner, sign_note
from support.evidence import LOG, ORIGIN, Book, book, certified, measured, vouched

PAGE = (Path(__file__).parents[2] / "docs/evidence.md").read_text(encoding="utf-8")
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def check() -> Any:
    """The page's own `check`, without its last line, which reads the command line."""
    names: dict[str, Any] = {}
    exec(PROGRAM.rpartition("\ncheck(")[0], names)
    return names["check"]


def spoiled() -> list[certificate.Certificate]:
    given, change = certified(), msgspec.structs.replace
    first = given.records[0]
    raw = bytearray(first.message)
    raw[30] ^= 1
    stranger = NoteSigner(ORIGIN, bytes(32))
    point = book()
    return [
        change(given, records=(change(first, index=1),)),
        change(given, records=(change(first, message=bytes(raw)),)),
        change(given, records=(change(first, proof=first.proof[1:]),)),
        change(given, records=(Book([measured(1), *book().messages]).record(1),)),
        change(given, signers=given.signers[1:]),
        change(given, signers=tuple(certificate.Signer(note, "") for note in vouched(log=stranger))),
        change(given, checkpoint=given.checkpoint.replace("\n13\n", "\n14\n")),
        change(given, checkpoint=sign_note(certificate.notes.Checkpoint(ORIGIN, 13, point.root()), stranger)),
    ]


@pytest.mark.spec("CERT-01")
def test_the_program_of_the_page_agrees_with_coflex(capsys: pytest.CaptureFixture[str]) -> None:
    run, key = check(), str(LOG.key)
    run(json.loads(certificate.encode(certified())), key)
    assert len(capsys.readouterr().out.splitlines()) == 3
    for bad in spoiled():
        assert certificate.verify(bad)
        with pytest.raises(Exception):  # noqa: B017  it ends with whatever it meets
            run(json.loads(certificate.encode(bad)), key)


def test_the_program_runs_as_it_stands_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "given.json").write_bytes(certificate.encode(certified()))
    words = [sys.executable, "check.py", "given.json", str(LOG.key)]
    told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, encoding="utf-8")
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[0] == f"0: signed by point 4711, message 1, in {ORIGIN} of size 13"


def test_the_page_names_every_code_and_every_field() -> None:
    told = (certificate.verify.__doc__ or "").partition("Codes: ")[2]
    codes = set(re.findall(r"[a-z_]+", told))
    assert len(codes) > 18 and {"forked", "rewritten", "not_in_log", "wrong_disclosure"} <= codes
    assert {code for code in codes if f"`{code}`" not in PAGE} == set()
    fields = {name for kind in (certificate.Certificate, certificate.Record) for name in kind.__struct_fields__}
    assert all(f"`{name}`" in PAGE for name in fields)
