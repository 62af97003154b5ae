"""`coflex compare`: designs and files in, a table, a page and numbers out; kept between calls; faults told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coflex.market.design import design_text
from support.command import coflex

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of one design that comes with coflex and one of our own."""
    place = tmp_path_factory.mktemp("compared")
    (place / "mine.yaml").write_text(design_text("smartnet_a").replace("id: smartnet_a", "id: mine", 1))
    told = coflex("compare", "smartnet_a", place / "mine.yaml", "--out", place / "out", "--workers", 2)
    assert told.exit_code == 0, told.stderr
    (place / "table.txt").write_text(told.stdout)
    (place / "progress.txt").write_text(told.stderr)
    return place


@pytest.mark.spec("PLAT-03")
def test_a_design_of_ones_own_stands_beside_the_others(compared: Path) -> None:
    body = json.loads((compared / "out/results.json").read_text())
    rows = {row["design"]: row for row in body["rows"]}
    assert list(rows) == ["nothing", "smartnet_d_one", "smartnet_a", "mine"]
    # The same document under another name decides the same.
    same = [
        {k: v for k, v in rows[name]["kpis"].items() if k not in ("design", "run_s")} for name in ("smartnet_a", "mine")
    ]
    assert same[0] == same[1]
    page = (compared / "out/index.html").read_text()
    table = (compared / "table.txt").read_text()
    for name in rows:
        assert name in page
        assert name in table
    assert len(list((compared / "out/runs").glob("*.json"))) == 3


def test_time_in_the_solver_and_power_flow_is_part_of_the_run(compared: Path) -> None:
    for row in json.loads((compared / "out/results.json").read_text())["rows"]:
        seconds = row["seconds"]
        assert seconds["power_flow"] > 0
        assert seconds["outside"] > 0
        assert seconds["solver"] + seconds["power_flow"] + seconds["outside"] == pytest.approx(seconds["total"])
        assert row["kpis"]["run_s"] == pytest.approx(seconds["total"], abs=1e-6)


def test_progress_says_how_far_it_is(compared: Path) -> None:
    lines = (compared / "progress.txt").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all(" s: " in line and "small 1" in line for line in lines)


def test_a_second_call_takes_what_is_there_and_answers_in_json(compared: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (compared / "out/runs").iterdir()}
    told = coflex("compare", "smartnet_a", compared / "mine.yaml", "--out", compared / "out", "--json")
    assert told.exit_code == 0, told.stderr
    answer = json.loads(told.stdout)
    assert (answer["jobs"], answer["reused"], answer["runs"], answer["troubles"]) == (3, 3, 4, [])
    assert Path(answer["page"]) == compared / "out/index.html"
    assert {file: file.stat().st_mtime_ns for file in (compared / "out/runs").iterdir()} == before


def test_faults_of_all_designs_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "taken.yaml").write_text(design_text("smartnet_a").replace("netted", "free").replace("both", "both"))
    (tmp_path / "broken.yaml").write_text("id: broken\n")
    (tmp_path / "nothing.yaml").write_text(design_text("smartnet_a").replace("id: smartnet_a", "id: nothing", 1))
    words = ("nowhere", tmp_path / "broken.yaml", tmp_path / "nothing.yaml")
    told = coflex("compare", *words, "--out", tmp_path / "out", "--json")
    assert told.exit_code == 1
    codes = {finding["code"] for finding in json.loads(told.stdout)["findings"]}
    assert codes == {"unknown_design", "missing_key", "id_taken"}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--case", "nowhere"), 1),
        (("--vary", "liquidity"), 1),
        (("--values", "0,1"), 1),
        (("--vary", "weather", "--values", "0,1"), 2),
        (("--set", "congestion"), 2),
        (("--set", "wind=1"), 1),
        (("--vary", "liquidity", "--values", "0,nan"), 2),
        (("--vary", "liquidity", "--values", "little"), 2),
        (("--workers", "1", "--cluster", "tcp://127.0.0.1:1"), 2),
    ],
)
def test_an_order_that_cannot_be_is_refused(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    told = coflex("compare", "smartnet_a", "--out", tmp_path / "out", *words)
    assert told.exit_code == code, told.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_ends_in_an_exit_code_and_a_summary(tmp_path: Path) -> None:
    # Congestion below zero is no case: each run fails by itself, and the page is written all the same.
    words = ("--vary", "congestion", "--values", "-1,1", "--workers", 1)
    told = coflex("compare", "smartnet_a", "--out", tmp_path / "out", *words)
    assert told.exit_code == 1
    assert "3 of 6 runs failed:" in told.stderr
    assert told.stderr.count("congestion -1") >= 3
    assert "smartnet_a" in told.stdout
    assert (tmp_path / "out/index.html").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
def test_an_interrupt_leaves_what_is_finished_and_ends_the_workers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "coflex", "compare", "smartnet_a", "beflexible_six", "--workers", "1"]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        # A shell starts what runs in its background with interrupts ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline().startswith("1/3")
        os.killpg(process.pid, signal.SIGINT)
        begun = time.monotonic()
        assert process.wait(timeout=20) == 130
        assert time.monotonic() - begun < 20
    # The whole group is gone, its workers with it.
    for _ in range(50):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("a worker was left behind")
    assert len(list((tmp_path / "runs").glob("measures-*.json"))) == 1
    assert not list((tmp_path / "runs").glob(".*"))
