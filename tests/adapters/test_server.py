"""The server, its logs and its metrics: how it begins, what it takes of clients, what it tells, how it ends."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.adapters.web.api.problems import install
from coflex.adapters.web.logs import logs
from coflex.adapters.web.metrics import Metrics, Watched, routes
from coflex.adapters.web.server import Listening, Stopping, _unbound, bind, dressed, run, tls
from coflex.domain.errors import CoflexError
from coflex.service import chain
from coflex.service.machine import Machine
from coflex.service.ports import Command, Entry, StoreLost
from coflex.service.sequencer import Sequencer
from support.forked import Forked, Tell

ANY = Listening(port=0)
# As short as the limits can be without failing a machine that is busy with something else.
SHORT = Listening(
    port=0, most_body=10_000, most_head=4_000, slow_head=1.0, slow_request=1.5, slow_reader=1.0, answers=1, stop=3.0
)


# ---------------------------------------------------------------- a platform to serve


class Nobody:
    """Counts nothing."""

    def request(self, method: str, route: str, status: int, seconds: float) -> None: ...


def application(stopping: Stopping, tell: Tell) -> Starlette:
    """Some addresses that behave as the tests need them."""

    async def hello(_: Request) -> Response:
        return PlainTextResponse("hello")

    async def size(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    async def slow(_: Request) -> Response:
        tell("under way")
        await asyncio.sleep(0.5)
        return PlainTextResponse("answered")

    async def stream(request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            yield b"begun\n"
            if request.path_params["kind"] == "polite":
                await stopping.wait()
                yield b"ended\n"
            else:
                await asyncio.sleep(3600)

        return StreamingResponse(lines())

    async def long(_: Request) -> Response:
        return Response(bytes(50_000_000))

    async def fail(_: Request) -> Response:
        raise ValueError("Erika Mustermann, erika@example.org")

    app = Starlette(
        routes=[
            Route("/hello", hello),
            Route("/size", size, methods=["POST"]),
            Route("/slow", slow),
            Route("/stream/{kind}", stream),
            Route("/long", long),
            Route("/fail", fail),
        ]
    )
    install(app)
    return app


def serving(tell: Tell, listening: Listening, stuck: bool = False) -> None:
    """A server in a process of its own; tells its address, and what happens at its end."""

    @asynccontextmanager
    async def platform(stopping: Stopping) -> AsyncIterator[Any]:
        yield dressed(application(stopping, tell), listening, logs("json", io.StringIO()), Nobody(), ())
        tell("closing")
        if stuck:
            await asyncio.sleep(3600)
        tell("closed")

    run(listening, platform, tell)


@pytest.fixture(scope="module")
def short() -> Iterator[str]:
    """The address of a server with short limits."""
    with Forked(serving, SHORT) as server:
        yield server.hear().removeprefix("coflex listens on ")


def served(listening: Listening = ANY, stuck: bool = False) -> tuple[Forked, str]:
    server = Forked(serving, listening, stuck)
    said = server.hear()
    assert said.startswith("coflex listens on ")
    return server, said.removeprefix("coflex listens on ")


def raw(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def problem_of(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split()[1]), json.loads(body)


# ---------------------------------------------------------------- where it listens


def test_a_port_that_is_taken_is_told_in_one_sentence_with_a_next_step() -> None:
    with closing(bind(ANY)) as first:
        taken = first.getsockname()[1]
        with pytest.raises(CoflexError) as told:
            bind(Listening(port=taken))
    assert told.value.message == f"Port {taken} of 127.0.0.1 is taken by another program."
    assert "--port" in told.value.remedy


@pytest.mark.parametrize(
    ("listening", "message"),
    [
        (Listening(host="no.such.name.invalid"), "There is no address 'no.such.name.invalid'."),
        (Listening(host="192.0.2.1", port=0), "192.0.2.1 is no address of this machine."),
        (Listening(port=65_536), "65536 is no port."),
        (Listening(host="a" * 70 + ".example"), f"There is no address '{'a' * 70}.example'."),
    ],
)
def test_an_address_that_is_none_is_told(listening: Listening, message: str) -> None:
    with pytest.raises(CoflexError) as told:
        bind(listening)
    assert told.value.message == message
    assert told.value.remedy


def test_a_port_for_administrators_is_told() -> None:
    told = _unbound(PermissionError(13, "Permission denied"), "127.0.0.1", 443)
    assert str(told) == "This user may not listen on port 443. Give a --port above 1023."


def test_the_server_says_where_it_listens_once_and_takes_requests_from_then_on() -> None:
    server, url = served()
    with server:
        assert httpx.get(f"{url}/hello").text == "hello"
        server.signal(signal.SIGTERM)
        said = [server.hear(), server.hear(), server.hear()]
    assert said[0].startswith("coflex stops on SIGTERM")
    assert said[1:] == ["closing", "closed"]


# ---------------------------------------------------------------- the end


@pytest.mark.spec("PLAT-05")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_end_then_closes_the_platform_and_the_process_ends_with_0(how: signal.Signals) -> None:
    server, url = served()
    with server, raw(url) as under_way, raw(url) as idle:
        idle.sendall(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"hello" in idle.recv(65536)
        under_way.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        assert server.hear() == "under way"
        began = time.monotonic()
        server.signal(how)
        answer = rest(under_way)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"answered")
        assert rest(idle) == b""
        assert [server.hear(), server.hear(), server.hear()][1:] == ["closing", "closed"]
        assert server.ended() == 0
        assert time.monotonic() - began < 10
        with pytest.raises(ConnectionRefusedError):
            raw(url)


def test_a_stream_that_asks_ends_at_once_and_one_that_does_not_is_cut() -> None:
    server, url = served(SHORT)
    with server, raw(url) as polite, raw(url) as deaf:
        for connection, kind in ((polite, "polite"), (deaf, "deaf")):
            connection.sendall(f"GET /stream/{kind} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            assert b"200" in connection.recv(20)
        server.signal(signal.SIGTERM)
        assert rest(polite).endswith(b"ended\n\r\n0\r\n\r\n")
        assert not rest(deaf).endswith(b"0\r\n\r\n")
        assert server.ended() == 0


def test_a_platform_that_does_not_close_is_cut_off_in_time() -> None:
    server, _ = served(SHORT, stuck=True)
    with server:
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.ended() == 1
        assert time.monotonic() - began < 10


def test_what_the_platform_raises_at_its_start_reaches_the_caller() -> None:
    @asynccontextmanager
    async def platform(_: Stopping) -> AsyncIterator[Any]:
        raise CoflexError("The store is locked.", "Stop the other server.")
        yield

    with pytest.raises(CoflexError, match="The store is locked"):
        run(ANY, platform, pytest.fail)


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of this machine, signed by itself, and its key."""
    return certificate(tmp_path_factory.mktemp("tls"), timedelta(days=90))


def certificate(folder: Path, holds: timedelta) -> tuple[Path, Path]:
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=10))
        .not_valid_after(now + holds)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


def test_with_a_certificate_the_server_speaks_https(papers: tuple[Path, Path]) -> None:
    server, url = served(Listening(port=0, tls_cert=papers[0], tls_key=papers[1]))
    with server:
        assert url.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=str(papers[0]))
        assert httpx.get(f"{url}/hello", verify=trusted).text == "hello"


def test_faults_of_certificate_and_key_are_told(papers: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = papers
    assert tls(ANY) is None
    for listening, message in (
        (Listening(tls_cert=cert), "TLS needs a certificate and its key."),
        (Listening(tls_cert=cert, tls_key=tmp_path / "none"), f"The file {tmp_path / 'none'} cannot be read."),
        (Listening(tls_cert=cert, tls_key=certificate(tmp_path, timedelta(days=1))[1]), "are no certificate and its"),
        (Listening(tls_cert=key, tls_key=key), "are no certificate and its key."),
    ):
        with pytest.raises(CoflexError) as told:
            tls(listening)
        assert message in told.value.message
        assert told.value.remedy


# ---------------------------------------------------------------- what it takes of clients


def test_a_body_above_the_limit_is_refused_by_its_head_and_by_what_comes(short: str) -> None:
    assert httpx.post(f"{short}/size", content=bytes(10_000)).text == "10000"
    said = httpx.post(f"{short}/size", content=bytes(10_001))
    assert (said.status_code, said.json()["code"]) == (413, "TOO_LARGE")
    chunked = httpx.post(f"{short}/size", content=(bytes(3_000) for _ in range(4)))
    assert (chunked.status_code, chunked.json()["code"]) == (413, "TOO_LARGE")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 408),
        (b"GET /hello HTTP/1.1\r\nhost", 408),
        (b"\r\n", 408),
        (b"POST /size HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc", 408),
        (b"GET /hello HTTP/1.1\r\nlong: " + b"x" * 10_000, 431),
        (b"GET /hello HTTP/1.1\r\n" + b"a: b\r\n" * 2_000, 431),
        (b"hello?\r\n\r\n", 400),
        (b"GET /hello?a=\x80 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET /h\xc3\xa4llo HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    ],
)
def test_who_sends_too_slowly_or_too_much_or_no_http_is_told_and_cut(short: str, sent: bytes, status: int) -> None:
    with raw(short) as connection:
        began = time.monotonic()
        connection.sendall(sent)
        told, problem = problem_of(rest(connection))
        assert told == status
        assert problem["remedy"]
        assert time.monotonic() - began < 6


def test_a_client_that_does_not_read_is_cut(short: str) -> None:
    with raw(short) as connection:
        connection.sendall(b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(2.7)
        came = 0
        with suppress(ConnectionResetError):
            while part := connection.recv(1 << 20):
                came += len(part)
        assert came < 50_000_000


def test_a_connection_beyond_the_most_is_closed_and_the_others_go_on() -> None:
    server, url = served(Listening(port=0, most_connections=2))
    with server, raw(url) as first, raw(url) as second:
        for one in (first, second):
            one.sendall(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"hello" in one.recv(65536)
        with raw(url) as third, pytest.raises((ConnectionResetError, BrokenPipeError)):
            third.sendall(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
            if third.recv(100) == b"":
                raise ConnectionResetError
        first.sendall(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"hello" in first.recv(65536)


# ---------------------------------------------------------------- logs


def ask(app: Any, path: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    """A request to an application in this process."""

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(more.pop("method", "GET"), path, headers=headers, **more)

    return asyncio.run(go())


def watched(stream: io.StringIO, tenants: tuple[str, ...] = ("north",), **endpoints: Any) -> Any:
    """A small application with an address of a tenant, logged to a stream."""

    async def unit(request: Request) -> Response:
        request.state.who = SimpleNamespace(actor=request.headers.get("x-client", "client-00000007"))
        await request.body()
        return PlainTextResponse("x" * 10)

    async def fail(request: Request) -> Response:
        raise ValueError(f"{request.url} {request.headers} {await request.body()!r}")

    app = Starlette(
        routes=[
            Route("/v1/{tenant}/units/{unit}", unit, methods=["GET", "PUT"]),
            Route("/v1/{tenant}/fail/{unit}", fail, methods=["GET", "PUT"]),
        ]
    )
    install(app)
    return dressed(app, ANY, logs("json", stream), Nobody(), tenants)


def test_a_request_is_one_line_of_json_with_its_route_and_not_its_address() -> None:
    stream = io.StringIO()
    answer = ask(watched(stream), "/v1/north/units/4711?filter=secret")
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert answer.headers["x-request-id"] == told.pop("request_id")
    assert datetime.fromisoformat(told.pop("timestamp")).tzinfo is not None
    assert told.pop("ms") >= 0
    assert told == {
        "event": "request",
        "level": "info",
        "tenant": "north",
        "client": "client-00000007",
        "method": "GET",
        "route": "/v1/{tenant}/units/{unit}",
        "status": 200,
    }


def test_request_ids_are_different() -> None:
    app = watched(io.StringIO())
    ids = {ask(app, "/v1/north/units/1").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


# Of persons, and of what must stay secret; each holds a mark that is looked for in the log.
MARK = "Mustermann"
PERSONAL = st.sampled_from(
    [f"Erika {MARK}", f"erika.{MARK}@example.org", f"{MARK}", f"Bearer {MARK}", f"+49 30 {MARK}", f"ü{MARK}\u2028x"]
)


@settings(max_examples=60, deadline=None)
@given(PERSONAL, PERSONAL, PERSONAL, PERSONAL, st.sampled_from(["units", "fail", "nowhere"]))
def test_nothing_of_a_person_gets_into_the_log_whatever_the_field(
    tenant: str, unit: str, header: str, body: str, what: str
) -> None:
    stream = io.StringIO()
    quoted = httpx.URL("http://here").copy_with(path=f"/v1/{tenant}/{what}/{unit}", params={"token": header})
    asked = header.encode().decode("latin-1").replace("\u2028", "")
    headers = {
        "authorization": asked,
        "x-request-id": asked,
        "cookie": asked,
        "user-agent": asked,
        "x-client": f"{MARK} {asked}",
        "x-forwarded-for": asked,
        "idempotency-key": asked,
        "on-behalf-of": asked,
    }
    headers = {name: value.encode("ascii", "ignore").decode() for name, value in headers.items()}
    ask(watched(stream), str(quoted.raw_path.decode()), headers, method="PUT", content=body.encode())
    log = stream.getvalue()
    assert log.count("\n") >= 1
    assert MARK.lower() not in log.lower()


def test_a_failure_is_told_by_its_kind_and_place_and_answered_with_a_problem() -> None:
    stream = io.StringIO()
    answer = ask(watched(stream), f"/v1/north/fail/{MARK}")
    assert (answer.status_code, answer.json()["status"]) == (500, 500)
    fault, request = map(json.loads, stream.getvalue().splitlines())
    assert (fault["event"], fault["level"], fault["error"]) == ("fault", "error", "ValueError")
    assert any(":fail:" in place for place in fault["where"])
    assert fault["request_id"] == request["request_id"] == answer.headers["x-request-id"]
    assert MARK not in stream.getvalue()


def test_what_is_no_known_field_is_dropped_and_what_is_no_identifier_withheld() -> None:
    stream = io.StringIO()
    log = logs("json", stream)
    log.info("signed_in", name=f"Erika {MARK}", client=f"Erika {MARK}", status=200, tenant=["north", f"a {MARK}"])
    told = json.loads(stream.getvalue())
    assert (told["client"], told["status"], told["tenant"]) == ("withheld", 200, ["north", "withheld"])
    assert "name" not in told


def test_what_libraries_say_is_told_by_its_place_alone() -> None:
    stream = io.StringIO()
    logs("json", stream)
    logging.getLogger("some.library").warning("user %s failed", f"Erika {MARK}")
    try:
        raise KeyError(MARK)
    except KeyError:
        logging.getLogger("some.library").exception(f"it was {MARK}")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["logger"] for line in lines] == ["some.library"] * 2
    assert lines[1]["error"] == "KeyError"
    assert MARK not in stream.getvalue()


def test_what_our_modules_say_is_told_in_their_words_and_what_it_is_about_when_that_is_no_text() -> None:
    stream = io.StringIO()
    logs("json", stream)
    logging.getLogger("coflex.engine").info("%s %s took %.2f s", "plan", "2016-07-05.local-1", 0.123)
    logging.getLogger("coflex.engine").info("%s failed: %s", "plan", f"Erika {MARK} is not there")
    logging.getLogger("some.library").info("hello")
    took, failed = map(json.loads, stream.getvalue().splitlines())
    assert (took["said"], took["about"]) == ("%s %s took %.2f s", ["plan", "2016-07-05.local-1", 0.123])
    assert (failed["said"], failed["about"]) == ("%s failed: %s", ["plan", "withheld"])


def test_a_log_that_cannot_be_written_hinders_nobody() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    assert ask(watched(Full()), "/v1/north/units/1").status_code == 200
    closed = io.StringIO()
    app = watched(closed)
    closed.close()
    assert ask(app, "/v1/north/units/1").status_code == 200


def test_on_a_terminal_the_log_is_plain_text() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    logs(None, stream).info("started", address="http://127.0.0.1:8080")
    assert "started" in stream.getvalue()
    assert "http://127.0.0.1:8080" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


# ---------------------------------------------------------------- metrics and health


class Worked:
    """A sequencer as far as it is watched."""

    def __init__(self) -> None:
        self.number, self.durable_number, self.alarm = 12, 10, ""
        self.listeners: list[Any] = []

    @property
    def ready(self) -> bool:
        return not self.alarm


def observed(worked: Worked, store: Exception | None = None) -> tuple[Metrics, Any]:
    metrics = Metrics()
    metrics.watch(worked, {}, Watched(lambda: 4.5, lambda: 3))

    def reach() -> None:
        if store is not None:
            raise store

    return metrics, Starlette(routes=routes(metrics, worked, reach))


def values(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_metrics_are_in_the_form_of_prometheus_and_right() -> None:
    worked = Worked()
    metrics, app = observed(worked)
    for _ in range(3):
        metrics.request("GET", "/v1/{tenant}/units", 200, 0.004)
    metrics.request("POST", "/v1/{tenant}/units", 422, 0.2)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for actor, verb in (("client-1", "unit.register"), ("clock", "session.open"), ("clock", "session.open")):
        command = Command("north", verb, "", "p", "p", actor, b"{}")
        worked.listeners[0](Entry(1, at, command, 201, b"{}", (), (), chain.FIRST))
    told = ask(app, "/metrics")
    assert told.headers["content-type"].startswith("text/plain")
    found = values(told.text)
    assert found["coflex_requests_total", "/v1/{tenant}/units", "200", "GET"] == 3
    assert found["coflex_requests_total", "/v1/{tenant}/units", "422", "POST"] == 1
    assert found["coflex_request_seconds_count", "/v1/{tenant}/units"] == 4
    assert found["coflex_request_seconds_sum", "/v1/{tenant}/units"] == pytest.approx(0.212)
    assert found["coflex_journal_entries_total", "unit.register"] == 1
    assert found["coflex_gates_total", "session.open"] == 2
    assert found["coflex_commands_waiting",] == 2
    assert found["coflex_journal_number",] == 10
    assert found["coflex_alarm",] == 0
    assert found["coflex_webhook_lag_seconds",] == 4.5
    assert found["coflex_feed_listeners",] == 3


def test_commits_are_measured_and_the_journal_stays_the_same() -> None:
    metrics = Metrics()
    inner = MemoryJournal()
    journal = metrics.measured(inner)
    sequencer = Sequencer(Machine({}), journal, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    assert sequencer.ready
    at = datetime(2026, 1, 1, tzinfo=UTC)
    command = Command("north", "tenant.open", "", "", "", "operator", b"{}")
    entries, before = [], chain.FIRST
    for number in (1, 2, 3):
        before = chain.digest(before, number, at, command, 201, b"{}", (), ())
        entries.append(Entry(number, at, command, 201, b"{}", (), (), before))
    journal.append(entries)
    assert journal.head() == inner.head()
    assert journal.head().number == 3

    def full(_: Any) -> None:
        raise StoreLost("The link is gone.")

    inner.append = full  # type: ignore[method-assign]
    with pytest.raises(StoreLost):
        journal.append(entries)
    text = values(metrics_text(metrics))
    assert text["coflex_commit_entries_sum",] == 3
    assert text["coflex_commit_seconds_count",] == 1
    assert text["coflex_commit_failures_total", "STORE_LOST"] == 1


def metrics_text(metrics: Metrics) -> str:
    from prometheus_client import generate_latest

    return generate_latest(metrics.registry).decode()


def test_metrics_are_for_this_machine_alone() -> None:
    def status(client: str, headers: dict[str, str]) -> int:
        _, app = observed(Worked())

        async def go() -> int:
            transport = httpx.ASGITransport(app, client=(client, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as asking:
                return (await asking.get("/metrics", headers=headers)).status_code

        return asyncio.run(go())

    assert status("127.0.0.1", {}) == 200
    assert status("::1", {}) == 200
    assert status("::ffff:127.0.0.1", {}) == 200
    assert status("192.0.2.7", {}) == 403
    assert status("127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}) == 403
    assert status("127.0.0.1", {"Forwarded": "for=192.0.2.7"}) == 403
    assert status("192.0.2.7", {"Authorization": "Bearer cf_client-mo_" + "s" * 43}) == 403


def test_health_is_the_process_and_readiness_the_sequencer_and_the_store() -> None:
    worked = Worked()
    _, app = observed(worked)
    assert ask(app, "/healthz").json() == {"status": "ok"}
    assert ask(app, "/readyz").json() == {"status": "ok", "entry": 10}
    worked.alarm = "The database does not answer."
    said = ask(app, "/readyz")
    assert (said.status_code, said.json()["detail"]) == (503, "The database does not answer.")
    assert said.headers["content-type"] == "application/problem+json"
    assert ask(app, "/healthz").status_code == 200
    _, app = observed(Worked(), store=StoreLost("The link is gone."))
    assert ask(app, "/readyz").json()["detail"] == "The link is gone."
    _, app = observed(Worked(), store=OSError("secret place"))
    assert ask(app, "/readyz").json()["detail"] == "The store does not answer."
