"""The house stands as it is drawn: every verb on every floor under one name, short functions, fresh pages."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest

from coflex.adapters.cli.main import coflex as commands

ROOT = Path(__file__).parents[1]
SOURCE = sorted((ROOT / "src").rglob("*.py"))
VERBS = ("register", "qualify", "plan", "offer", "clear", "activate", "measure", "settle", "report")
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])


def named_tests(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return (node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


# ---------------------------------------------------------------- the mirror


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_its_module_its_command_its_page_and_its_tests(verb: str) -> None:
    assert (ROOT / f"src/coflex/process/{verb}.py").is_file()
    assert verb in {command.callback.__name__ for command in commands.registered_commands if command.callback}
    assert (ROOT / f"docs/process/{verb}.md").read_text(encoding="utf-8").startswith(f"# {verb.capitalize()}\n")
    assert list(named_tests(ROOT / f"tests/process/test_{verb}.py"))


def test_there_is_no_page_and_no_test_of_a_verb_that_does_not_exist() -> None:
    assert {page.stem for page in (ROOT / "docs/process").glob("*.md")} == set(VERBS)
    tested = {file.stem.removeprefix("test_") for file in (ROOT / "tests/process").glob("test_*.py")}
    assert tested == set(VERBS)


# ---------------------------------------------------------------- the habits


@pytest.mark.parametrize("file", SOURCE, ids=lambda file: str(file.relative_to(ROOT / "src")))
def test_a_file_can_be_read_in_one_sitting(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 750
    assert not re.search(r"# type: ignore(?!\[)", text), "say which fault of type is ignored"


def test_nineteen_functions_in_twenty_are_under_forty_lines() -> None:
    lengths = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for file in SOURCE
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(lengths) > 500
    assert sum(length >= 40 for length in lengths) <= len(lengths) / 20


def test_nothing_is_left_for_later() -> None:
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    files = [*SOURCE, *sorted((ROOT / "tests").rglob("*.py")), *PAGES]
    assert [str(file.relative_to(ROOT)) for file in files if mark.search(file.read_text(encoding="utf-8"))] == []


def test_what_is_not_python_lies_beside_the_code_that_reads_it() -> None:
    assert resources.files("coflex.market").joinpath("designs", "beflexible_six.yaml").is_file()
    pages = resources.files("coflex.adapters.web.pages")
    assert all(pages.joinpath(name).is_file() for name in ("day.html.j2", "day.css", "day.js"))


# ---------------------------------------------------------------- the pages


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            place = target.partition("#")[0]
            if place and "://" not in place and not (page.parent / place).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def test_every_decision_and_every_page_can_be_found_from_the_front_page() -> None:
    front = ROOT / "docs/index.md"
    reached, waiting = set(), [front]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        waiting += [page.parent / target for target in targets if "://" not in target]
    assert {page.resolve() for page in (ROOT / "docs").rglob("*.md")} <= reached


def test_decisions_are_numbered_without_a_gap_and_say_their_number() -> None:
    records = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        title = record.read_text(encoding="utf-8").splitlines()[0]
        assert int(title.split()[1].rstrip(".")) == int(record.name[:4])


def test_the_page_of_requirements_is_fresh() -> None:
    written = (ROOT / "docs/requirements.md").read_text(encoding="utf-8")
    assert tool("requirements").page() == written, "run make requirements"


def test_marks_are_read_from_decorators_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(
        '@pytest.mark.parametrize("a", [pytest.param(1, marks=pytest.mark.spec("B-2")), 2])\n'
        '@pytest.mark.spec("A-1", "B-2")\n'
        "def test_first(a): ...\n\n"
        '@pytest.mark.spec("A-1")\n'
        "def test_second(): ...\n\n"
        "def test_third(): ...\n"
    )
    assert tool("requirements").collect(tmp_path) == {"A-1": {"test_one.py": 2}, "B-2": {"test_one.py": 1}}


def tool(name: str) -> ModuleType:
    """A program of `tools/`, which is no part of the package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
