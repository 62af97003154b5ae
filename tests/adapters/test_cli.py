"""The command line on a small case: answers, order of the verbs, exit codes, and a fast start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coflex import app
from coflex.adapters.cli.main import coflex as commands
from support.command import coflex, contents
from support.small_case import small_folder

VERBS = ["register", "qualify", "plan", "offer", "clear", "activate", "measure", "settle", "report"]
VERBS += ["run", "compare", "version"]
HEAVY = ("numpy", "scipy", "pyarrow", "sqlalchemy", "pydantic", "highspy", "power_grid_model", "pandapower", "simbench")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with the small case and the outcome of its day."""
    place = tmp_path_factory.mktemp("ran")
    told = coflex("run", small_folder(place), "--out", place / "out", "--json")
    assert told.exit_code == 0, told.stderr
    (place / "answer.json").write_text(told.stdout)
    return place


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    small_folder(tmp_path)
    return tmp_path


def say(place: Path, *words: str, case: str = "small") -> Any:
    """The answer of a verb on the case, which must be one line of canonical JSON and nothing else."""
    verb, *rest = words
    told = coflex(verb, place / case, *rest, "--out", place / "out", "--json")
    assert told.exit_code == 0, told.stderr
    answer = json.loads(told.stdout)
    assert told.stdout == json.dumps(answer, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    return answer


def outcome(folder: Path) -> dict[str, bytes]:
    """What a day decided; the store's own pages and the clock are not part of it."""
    return {name: data for name, data in contents(folder).items() if name not in ("coflex.db", "timings.json")}


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_says_what_it_does_and_shows_an_example(verb: str) -> None:
    told = coflex(verb, "--help")
    assert told.exit_code == 0
    assert f"Example: coflex {verb}" in told.stdout
    assert "--json" in told.stdout


def test_the_list_of_commands_is_the_list_of_verbs_and_what_serves() -> None:
    assert sorted(
        command.name or getattr(command.callback, "__name__", "") for command in commands.registered_commands
    ) == sorted([*VERBS, "serve", "doctor", "ingest", "verify"])


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from coflex.adapters.cli.main import coflex; import coflex.__main__; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition(".")[0] for name in modules}.isdisjoint(HEAVY)


def test_the_installed_command_is_the_one_that_starts_fast() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"coflex": "coflex.__main__:main"}


# ---------------------------------------------------------------- the day


def test_single_verbs_give_the_outcome_of_the_whole_run(ran: Path, fresh: Path) -> None:
    say(fresh, "register")
    say(fresh, "qualify")
    assert say(fresh, "plan")["session"] == "local-1"
    assert say(fresh, "clear")["session"] == "local-1"
    planned = say(fresh, "plan", "--all")["sessions"]
    assert [step["session"] for step in planned][-1] == "global-6"
    assert [step["session"] for step in say(fresh, "clear", "--all")["sessions"]] == ["global-6"]
    for verb in ("activate", "measure", "settle", "report"):
        say(fresh, verb)
    assert outcome(fresh / "out" / "small") == outcome(ran / "out" / "small")


def test_a_second_run_starts_the_day_anew_and_ends_alike(ran: Path, fresh: Path) -> None:
    say(fresh, "register")
    say(fresh, "run")
    first = outcome(fresh / "out" / "small")
    say(fresh, "run")
    assert outcome(fresh / "out" / "small") == first == outcome(ran / "out" / "small")


def test_the_run_tells_how_long_each_clearing_took(ran: Path) -> None:
    timings = json.loads((ran / "out" / "small" / "timings.json").read_text())
    assert len(timings["sessions"]) == 12
    for session in timings["sessions"]:
        assert 0 <= session["solver_seconds"] <= session["total_seconds"] <= timings["day_seconds"]


def test_the_summary_shows_the_numbers_of_the_answer_and_the_page(fresh: Path) -> None:
    told = coflex("run", fresh / "small", "--out", fresh / "out")
    answer = say(fresh, "report")
    seen = answer["violations"]
    assert f"{seen['forecast']}, and {seen['planned']} with what was bought" in told.stdout
    assert f"{answer['paid_eur']} EUR" in told.stdout
    assert told.stdout.splitlines()[-1] == f"Report: {fresh / 'out' / 'small' / 'report.html'}"
    assert (fresh / "out" / "small" / "report.html").is_file()
    assert told.stderr.splitlines()[:3] == ["register", "qualify", "plan local-1"]
    assert "\x1b" not in told.stdout + told.stderr


def test_answers_for_people_carry_their_units(fresh: Path) -> None:
    coflex("register", fresh / "small", "--out", fresh / "out")
    told = coflex("qualify", fresh / "small", "--out", fresh / "out")
    assert re.search(r"registered power +\d+ kW\n", told.stdout)


# ---------------------------------------------------------------- order


@pytest.mark.parametrize(
    ("done", "verb", "first"),
    [
        ([], "plan", "coflex register"),
        (["register"], "register", "--replace"),
        (["register", "qualify"], "clear", "coflex plan"),
        (["register", "qualify", "plan"], "plan", "coflex clear"),
        (["register", "qualify", "plan"], "activate", "coflex clear"),
        (["run"], "plan", "coflex activate"),
        (["run"], "settle", "coflex report"),
    ],
)
def test_a_verb_before_its_time_names_the_one_that_comes_first(
    fresh: Path, done: list[str], verb: str, first: str
) -> None:
    for earlier in done:
        say(fresh, earlier)
    told = coflex(verb, fresh / "small", "--out", fresh / "out", "--json")
    answer = json.loads(told.stdout)
    assert (told.exit_code, answer["error"], answer["findings"]) == (1, "NOT_READY", [])
    assert first in answer["remedy"]
    assert told.stderr == f"{answer['message']} {answer['remedy']}\n"


def test_register_with_replace_begins_the_day_again(fresh: Path) -> None:
    say(fresh, "run")
    say(fresh, "register", "--replace")
    assert outcome(fresh / "out" / "small") == {}
    say(fresh, "qualify")


# ---------------------------------------------------------------- faults


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a slip")

    monkeypatch.setattr(app, "open_day", fail)
    yield


@pytest.mark.usefixtures("broken")
def test_a_fault_of_the_program_is_one_sentence_with_its_own_exit_code(tmp_path: Path) -> None:
    told = coflex("qualify", tmp_path)
    assert told.exit_code == 70
    assert "ZeroDivisionError: a slip" in told.stderr
    assert len(told.stderr.splitlines()) == 1


@pytest.mark.usefixtures("broken")
def test_debug_shows_where_it_comes_from(tmp_path: Path) -> None:
    assert isinstance(coflex("--debug", "qualify", tmp_path).exception, ZeroDivisionError)


def test_a_place_that_cannot_be_written_is_told_in_a_sentence(fresh: Path) -> None:
    (fresh / "out").write_text("a file where a folder should be")
    told = coflex("run", fresh / "small", "--out", fresh / "out")
    assert told.exit_code == 1
    assert told.stderr.startswith("The system says: ")
    assert (fresh / "out").read_text() == "a file where a folder should be"


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["run"],
        ["clear", "cases/x", "--al"],
        ["offer", "cases/x", "no-such-table.csv"],
        ["case", "make", "--day", "5 July"],
        ["case", "make", "--units", "0"],
    ],
)
def test_a_command_that_cannot_be_read_ends_with_two(words: list[str]) -> None:
    told = coflex(*words)
    assert told.exit_code == 2
    assert told.stdout == ""


# ---------------------------------------------------------------- cases


def test_an_unknown_grid_and_an_unknown_design_are_refused(tmp_path: Path) -> None:
    for words in (["--grid", "no/such"], ["--design", "none"]):
        told = coflex("case", "make", *words, "--out", tmp_path / "case")
        assert told.exit_code == 1
        assert words[1] in told.stderr
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_replaced_unasked_and_one_that_is_no_case_never(tmp_path: Path) -> None:
    case, other = small_folder(tmp_path), tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    before = contents(tmp_path)
    unasked = coflex("case", "make", "--out", case)
    never = coflex("case", "make", "--out", other, "--replace")
    assert (unasked.exit_code, never.exit_code) == (1, 1)
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_case_is_made_from_simbench_and_its_day_can_be_drawn_again(tmp_path: Path) -> None:
    words = ["case", "make", "--units", "60", "--providers", "4", "--json"]
    told = coflex(*words, "--out", tmp_path / "one")
    assert json.loads(told.stdout) == {"buses": 144, "case": str(tmp_path / "one"), "providers": 6, "units": 63}
    coflex(*words, "--out", tmp_path / "again" / "one")
    assert contents(tmp_path / "again" / "one") == contents(tmp_path / "one")
    told = coflex("case", "make", "--day", "2031-01-01", "--out", tmp_path / "late")
    assert told.exit_code == 1
    assert "case.yaml, key day" in told.stderr
    assert not (tmp_path / "late").exists()
