"""`coflex doctor`, `coflex serve` and `coflex store`: what they look at, what they say, how they end."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from coflex.adapters.cli import doctor
from coflex.adapters.cli.doctor import Check, Place, Verdict
from coflex.adapters.cli.main import coflex as commands
from coflex.adapters.store.journal import SqlJournal
from coflex.domain.errors import CoflexError
from support.command import coflex
from support.platform import desk, open_tenant, set_clock

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Looked:
    """A look at a store that is in order."""

    kind: str = "SQLite"
    version: str = "3.45.1"
    shape: str = "v0002"
    newest_shape: str = "v0002"
    entries: int = 12
    last_at: datetime | None = NOW
    writer: str = ""


@dataclass(frozen=True)
class Moved:
    entries: int
    differences: tuple[str, ...] = ()


@dataclass
class Fake:
    """A service that notes what it is asked for."""

    probed: Looked | CoflexError = field(default_factory=Looked)
    differences: tuple[str, ...] = ()
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def service(self) -> Fake:
        return self

    @property
    def Settings(self) -> Callable[..., Any]:  # noqa: N802  a class there
        return SimpleNamespace

    def probe(self, settings: Any) -> Looked:
        self.asked.append(("probe", settings))
        if isinstance(self.probed, CoflexError):
            raise self.probed
        return self.probed

    def serve(self, settings: Any, tell: Callable[[str], None]) -> None:
        self.asked.append(("serve", settings))
        tell("coflex listens on http://127.0.0.1:8080")

    def backup(self, settings: Any, to: Path) -> Moved:
        self.asked.append(("backup", settings, to))
        return Moved(12)

    def restore(self, settings: Any, source: Path, replace: bool) -> Moved:
        self.asked.append(("restore", settings, source, replace))
        return Moved(12)

    def migrate(self, settings: Any) -> Moved:
        self.asked.append(("migrate", settings))
        return Moved(12)

    def verify(self, settings: Any, progress: Callable[[str], None]) -> Moved:
        return Moved(12, self.differences)

    def replay(self, settings: Any, progress: Callable[[str], None]) -> Moved:
        return Moved(12, self.differences)


def say(fake: Fake, *words: object, **environment: str) -> Result:
    """Run `coflex` with this service behind it."""
    return CliRunner(env={"COFLEX_DATABASE_URL": "", **environment}).invoke(
        commands, [str(word) for word in words], obj=lambda: fake, prog_name="coflex"
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# ---------------------------------------------------------------- doctor


def test_a_machine_in_order_is_told_line_by_line_and_ends_with_0(data: Path) -> None:
    told = say(Fake(), "doctor", "--data", data, "--port", free_port(), "--json")
    answer = json.loads(told.stdout)
    names = [check["name"] for check in answer["checks"]]
    assert names == [
        "python", "packages", "data folder", "free space", "disk sync", "key files", "port",
        "database", "tables", "clock", "writer",
    ]  # fmt: skip
    assert answer["verdict"] in ("ok", "warn")
    assert told.exit_code == 0
    for check in answer["checks"]:
        assert check["found"].endswith(".")
        assert (check["verdict"] == "ok") == (check["next_step"] == ""), check
    plain = say(Fake(), "doctor", "--data", data, "--port", free_port())
    assert [line[6:18].strip() for line in plain.stdout.splitlines()] == names


def test_what_fails_ends_the_command_with_1(data: Path) -> None:
    lost = Fake(CoflexError("The database does not answer.", "Start it."))
    told = say(lost, "doctor", "--data", data, "--port", free_port())
    assert told.exit_code == 1
    assert told.stdout.splitlines()[-1] == "fail  database      The database does not answer. Start it."


def test_looking_changes_nothing(data: Path) -> None:
    say(Fake(), "doctor", "--data", data, "--port", free_port())
    say(Fake(), "doctor", "--data", data / "not" / "there", "--port", free_port())
    assert list(data.iterdir()) == []


def test_old_pythons_and_missing_packages_fail() -> None:
    assert doctor.python((3, 10, 9)).verdict is Verdict.FAIL
    assert doctor.python((3, 11, 0)).verdict is Verdict.OK
    assert doctor.packages(["pytest>=1"]).verdict is Verdict.OK
    assert doctor.packages(None).verdict is Verdict.WARN
    told = doctor.packages(["pytest>=999.1", "no-such-package", "other; extra == 'dev'"])
    assert told.verdict is Verdict.FAIL
    assert "pytest is" in told.found
    assert "no-such-package is not there" in told.found
    assert "other" not in told.found


@pytest.mark.skipif(os.name != "posix", reason="rights of files as POSIX has them")
def test_a_data_folder_that_others_may_read_is_warned_of(data: Path) -> None:
    assert doctor.data_folder(data).verdict is Verdict.OK
    assert doctor.data_folder(data / "new").verdict is Verdict.OK
    data.chmod(0o755)
    told = doctor.data_folder(data)
    assert (told.verdict, told.next_step) == (Verdict.WARN, f"Close it: chmod 700 {data}.")
    file = data / "file"
    file.touch()
    assert doctor.data_folder(file).verdict is Verdict.FAIL


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the administrator may write anywhere")
def test_a_data_folder_without_the_right_to_write_fails(data: Path) -> None:
    data.chmod(0o500)
    assert doctor.data_folder(data).verdict is Verdict.FAIL


def test_little_room_is_warned_of_and_too_little_fails() -> None:
    gib = 1024**3
    assert [doctor.room(free).verdict for free in (100 * gib, gib, gib // 4)] == [
        Verdict.OK, Verdict.WARN, Verdict.FAIL,
    ]  # fmt: skip


def test_a_disk_that_syncs_slowly_or_not_at_all_is_warned_of() -> None:
    assert doctor.sync([0.001] * 9).verdict is Verdict.OK
    assert doctor.sync([0.05] * 9).verdict is Verdict.WARN
    told = doctor.sync([1e-7] * 9)
    assert told.verdict is Verdict.WARN
    assert "lost without power" in told.next_step


@pytest.mark.skipif(os.name != "posix", reason="rights of files as POSIX has them")
def test_a_key_that_others_may_read_fails(data: Path) -> None:
    place = Place(data, "127.0.0.1", 1)
    assert doctor.secrets(place).found == "There are none yet."
    key = data / "signing.key"
    key.touch(mode=0o600)
    assert doctor.secrets(place).verdict is Verdict.OK
    key.chmod(0o640)
    told = doctor.secrets(place)
    assert told.verdict is Verdict.FAIL
    assert f"chmod 600 {key}" in told.next_step
    key.chmod(0o600)
    assert doctor.secrets(replace(place, tls_key=data / "none.pem")).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("holds", "verdict"), [(90, Verdict.OK), (10, Verdict.WARN), (-1, Verdict.FAIL), (None, Verdict.FAIL)]
)
def test_a_certificate_is_told_before_it_ends(tmp_path: Path, holds: int | None, verdict: Verdict) -> None:
    from adapters.test_server import certificate

    file = tmp_path / "cert.pem"
    if holds is None:
        file.write_text("no certificate")
    else:
        certificate(tmp_path, timedelta(days=holds))
    assert doctor.certificate(file, datetime.now(UTC)).verdict is verdict


def test_a_port_that_is_taken_is_warned_of() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        assert doctor.port("127.0.0.1", one.getsockname()[1]).verdict is Verdict.WARN
    assert doctor.port("127.0.0.1", free_port()).verdict is Verdict.OK
    assert doctor.port("no.such.name.invalid", 8080).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("probe", "name", "verdict"),
    [
        (Looked(version="3.30.0"), "database", Verdict.FAIL),
        (Looked(kind="PostgreSQL", version="13.9 (Debian 13.9-1)"), "database", Verdict.FAIL),
        (Looked(kind="PostgreSQL", version="17.2"), "database", Verdict.OK),
        (Looked(shape=""), "tables", Verdict.OK),
        (Looked(shape="v0001"), "tables", Verdict.FAIL),
        (Looked(last_at=None, entries=0), "clock", Verdict.OK),
        (Looked(last_at=datetime(2100, 1, 1, tzinfo=UTC)), "clock", Verdict.FAIL),
        (Looked(writer="process 4711"), "writer", Verdict.WARN),
    ],
)
def test_what_the_store_says_is_judged(probe: Looked, name: str, verdict: Verdict) -> None:
    found = {check.name: check for check in doctor.of_store(Fake(probe), None)}
    assert found[name].verdict is verdict
    assert (found[name].next_step == "") == (verdict is Verdict.OK)


@given(st.lists(st.sampled_from(list(Verdict))))
def test_the_worst_line_is_the_verdict(verdicts: list[Verdict]) -> None:
    told = doctor.worst([Check("a", verdict, "b.") for verdict in verdicts])
    for verdict in (Verdict.FAIL, Verdict.WARN, Verdict.OK):
        if verdict in verdicts or verdict is Verdict.OK:
            assert told is verdict
            break


# ---------------------------------------------------------------- serve and store


@pytest.mark.spec("PLAT-04")
def test_without_a_word_the_platform_serves_on_this_machine_from_a_file() -> None:
    fake = Fake()
    told = say(fake, "serve")
    assert told.exit_code == 0, told.output
    assert told.stdout == "coflex listens on http://127.0.0.1:8080\n"
    ((_, settings),) = fake.asked
    assert vars(settings) == {
        "data": Path("data"), "database_url": None, "host": "127.0.0.1", "port": 8080, "tls_cert": None,
        "tls_key": None, "log_format": None, "speed": 1, "demo": True, "case": None,
        "private_webhooks": False, "mqtt": None, "witnesses": None,
    }  # fmt: skip


@pytest.mark.spec("PLAT-04")
def test_options_and_the_environment_choose_database_place_and_address(tmp_path: Path) -> None:
    fake = Fake()
    url = "postgresql://coflex:secret@db/coflex"
    words = ("--port", 0, "--host", "::1", "--no-demo", "--speed", 60, "--log-format", "json", "--case", "cases/mine")
    words += ("--mqtt", "mqtts://broker:8883")
    told = say(fake, "serve", *words, COFLEX_DATABASE_URL=url, COFLEX_DATA=str(tmp_path))
    assert told.exit_code == 0, told.output
    ((_, settings),) = fake.asked
    assert (settings.database_url, settings.data, settings.port, settings.host) == (url, tmp_path, 0, "::1")
    assert (settings.demo, settings.speed, settings.log_format) == (False, 60, "json")
    assert (settings.case, settings.mqtt) == (Path("cases/mine"), "mqtts://broker:8883")


def test_a_service_that_cannot_start_is_told_in_a_sentence_and_ends_with_1() -> None:
    class Taken(Fake):
        def serve(self, settings: Any, tell: Callable[[str], None]) -> None:
            raise CoflexError("Port 8080 of 127.0.0.1 is taken by another program.", "Give another --port.")

    told = say(Taken(), "serve")
    assert told.exit_code == 1
    assert told.stderr == "Port 8080 of 127.0.0.1 is taken by another program. Give another --port.\n"


def test_copies_are_made_and_brought_back(tmp_path: Path) -> None:
    fake, file = Fake(), tmp_path / "copy"
    assert say(fake, "store", "backup", file, "--data", tmp_path).exit_code == 0
    assert say(fake, "store", "restore", file).exit_code == 2
    file.touch()
    assert json.loads(say(fake, "store", "restore", file, "--replace", "--json").stdout)["entries"] == 12
    assert say(fake, "store", "migrate").exit_code == 0
    assert [one[0] for one in fake.asked] == ["backup", "restore", "migrate"]
    assert fake.asked[0][1].data == tmp_path
    assert fake.asked[1][2:] == (file, True)


@pytest.mark.parametrize("proof", ["verify", "replay"])
def test_a_proof_that_fails_ends_the_command_with_1(proof: str) -> None:
    assert say(Fake(), "store", proof).exit_code == 0
    told = say(Fake(differences=("entry 7: its content is not what was acknowledged",)), "store", proof)
    assert told.exit_code == 1
    assert "entry 7" in told.stdout


# ---------------------------------------------------------------- the real service behind them


def facts_of(*words: object) -> Any:
    """The answer of a command of the real application."""
    told = coflex(*words, "--json")
    assert told.exit_code == 0, told.output
    return json.loads(told.stdout)


def test_a_real_store_is_looked_at_copied_brought_back_and_proved(data: Path, tmp_path: Path) -> None:
    journal = SqlJournal(data / "coflex.db")
    platform = desk(journal)
    platform.submit(open_tenant())
    entries = platform.submit(set_clock()).number
    busy = {one["name"]: one for one in facts_of("doctor", "--data", data, "--port", free_port())["checks"]}
    assert busy["writer"]["verdict"] == "warn"
    journal.close()

    looked = {one["name"]: one for one in facts_of("doctor", "--data", data, "--port", free_port())["checks"]}
    assert looked["database"]["found"].endswith(f"answers, with {entries} entries.")
    assert {looked[name]["verdict"] for name in ("database", "tables", "clock", "writer")} == {"ok"}
    assert facts_of("store", "verify", "--data", data)["entries"] == entries
    copy = tmp_path / "copy.db"
    assert facts_of("store", "backup", copy, "--data", data)["entries"] == entries
    assert facts_of("store", "restore", copy, "--data", tmp_path / "other")["entries"] == entries
    assert facts_of("store", "replay", "--data", tmp_path / "other")["differences"] == []
    assert facts_of("store", "migrate", "--data", data)["after"] == looked["tables"]["found"].split()[-1].rstrip(".")

    with closing(sqlite3.connect(tmp_path / "other/coflex.db")) as database, database:
        database.execute("UPDATE entry SET body = replace(body, 'Test', 'Toast') WHERE number = 1")
    told = coflex("store", "verify", "--data", tmp_path / "other")
    assert told.exit_code == 1
    assert "1" in told.stdout
