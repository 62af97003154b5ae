"""The HTTP server: one process, one loop, one listening socket; it begins with a sentence and ends in good order.

uvicorn speaks HTTP, on uvloop and httptools. What is added here: faults of the address told before anything is opened,
limits on what a client may send and how slowly, and the end. On SIGTERM or SIGINT nothing new is accepted, requests
that are under way are answered, then the platform closes (it writes what waits), and the process ends with 0; what
does not end in time is cut off, which loses nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Container, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from coflex.adapters.web.api.problems import Malformed, TooLarge, answer
from coflex.adapters.web.logs import Counts, Log, Observed
from coflex.domain.errors import CoflexError, Finding

# The writer's thread asks for the interpreter a few times a commit. With Python's own 5 ms it waits behind the loop
# each time and both convoy; much less costs switches. Measured by bench/orders.py.
SWITCH_SECONDS = 0.0005
# Offers stay in memory by the hundred thousand and refer to nothing in circles: a collector that went through them as
# often as Python's own settings ask would hold everybody up. What is young is looked at often enough.
GARBAGE = (50_000, 20, 1_000)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where and how the server listens. `port` 0: any free one. Times in seconds.

    `most_body`, `most_head`: bytes of a request's body and of its head. `most_connections`: more are closed at once.
    `slow_head`, `slow_request`: until the head, and until all of a request, must be there. `slow_reader`: how long a
    client may take nothing of an answer. `idle`: how long a connection is kept open between requests. `answers`: how
    long requests may take to end once the server stops; `stop`: until the process is gone at the latest.
    `proxies`: whose X-Forwarded-For is believed.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    tls_cert: Path | None = None
    tls_key: Path | None = None
    most_body: int = 8 << 20
    most_head: int = 64 << 10
    most_connections: int = 4_000
    slow_head: float = 10.0
    slow_request: float = 60.0
    slow_reader: float = 30.0
    idle: int = 75
    answers: int = 4
    stop: float = 9.0
    proxies: tuple[str, ...] = ("127.0.0.1", "::1")

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert else "http"


class Stopping:
    """Whether the server stops. Streams that never end by themselves wait for it, or ask `began` in between."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def began(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        await self._event.wait()

    def begin(self) -> None:
        self._event.set()


# The platform on a running loop: opened on entering, closed (all that waits written) on leaving.
Platform = Callable[[Stopping], AbstractAsyncContextManager[ASGIApp]]


# ---------------------------------------------------------------- where it listens


def bind(listening: Listening) -> socket.socket:
    """The socket that the server will listen on. Raises CoflexError with what to do."""
    host, port = listening.host, listening.port
    if not 0 <= port <= 65_535:
        raise CoflexError(f"{port} is no port.", "Give --port a number from 1 to 65535, or 0 for any free one.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise CoflexError(f"There is no address '{host}'.", "Give --host a name or address of this machine.") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as fault:
        listener.close()
        raise _unbound(fault, host, port) from None
    listener.setblocking(False)
    return listener


def _unbound(fault: OSError, host: str, port: int) -> CoflexError:
    if fault.errno == errno.EADDRINUSE:
        return CoflexError(f"Port {port} of {host} is taken by another program.", "Stop it, or give another --port.")
    if fault.errno == errno.EACCES:
        return CoflexError(f"This user may not listen on port {port}.", "Give a --port above 1023.")
    if fault.errno == errno.EADDRNOTAVAIL:
        return CoflexError(f"{host} is no address of this machine.", "Give --host one of its addresses, or 0.0.0.0.")
    return CoflexError(f"The server cannot listen on {host}, port {port}: {fault.strerror}.", "Give another address.")


def tls(listening: Listening) -> ssl.SSLContext | None:
    """The server's certificate and key, None where it speaks plain HTTP. Raises CoflexError with what to do."""
    cert, key = listening.tls_cert, listening.tls_key
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise CoflexError("TLS needs a certificate and its key.", "Give both --tls-cert and --tls-key.")
    for option, file in (("--tls-cert", cert), ("--tls-key", key)):
        if not os.access(file, os.R_OK) or not file.is_file():
            raise CoflexError(f"The file {file} cannot be read.", f"Give {option} a file that this user may read.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password=partial(_no_password, key))
    except ssl.SSLError:
        raise CoflexError(
            f"{cert} and {key} are no certificate and its key.", "Give the PEM files of one certificate."
        ) from None
    return context


def _no_password(key: Path) -> str:
    raise CoflexError(f"The key {key} asks for a password.", "Give one without, readable by the service's user alone.")


def address(listener: socket.socket, listening: Listening) -> str:
    """The URL under which a server on the socket is reached from this machine or, where it is told, from others."""
    host, port = listener.getsockname()[:2]
    here = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{listening.scheme}://{here}:{port}"


# ---------------------------------------------------------------- the run


def run(
    listening: Listening, platform: Platform, tell: Callable[[str], None], listener: socket.socket | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then stop in good order. To be called on the main thread.

    `listener`: from `bind`, where the caller bound first. `tell` gets the address once requests are taken, and a word
    when the server stops. Raises CoflexError where it cannot listen, and what the platform raises on entering.
    """
    context = tls(listening)
    listener = listener or bind(listening)
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(listening, platform, tell, listener, context))
    finally:
        listener.close()
        sys.setswitchinterval(before)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows has none
        return None
    return cast("Callable[[], asyncio.AbstractEventLoop]", uvloop.new_event_loop)


async def _serve(
    listening: Listening,
    platform: Platform,
    tell: Callable[[str], None],
    listener: socket.socket,
    context: ssl.SSLContext | None,
) -> None:
    stopping = Stopping()
    watchdog = threading.Timer(listening.stop, os._exit, (1,))
    watchdog.daemon = True
    # What a platform holds from its start is never garbage. Not to look at it, neither while it is read nor ever after,
    # makes the start faster and saves long pauses.
    gc.disable()
    try:
        with _signals(stopping, watchdog, tell):
            async with platform(stopping) as app:
                gc.freeze()
                gc.set_threshold(*GARBAGE)
                gc.enable()
                if not stopping.began:
                    server = _Server(_config(app, listening, context), stopping, listening)
                    tell(f"coflex listens on {address(listener, listening)}")
                    await server.serve(sockets=[listener])
    finally:
        gc.enable()
        gc.unfreeze()
        watchdog.cancel()


@contextlib.contextmanager
def _signals(stopping: Stopping, watchdog: threading.Timer, tell: Callable[[str], None]) -> Iterator[None]:
    """Let the first signal begin the end, and the second cut it short."""
    loop = asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        if stopping.began:
            os._exit(1)
        stopping.begin()
        watchdog.start()
        tell(f"coflex stops on {number.name}: requests under way are answered, then the journal is closed")

    handled = []
    for number in _SIGNALS:
        with suppress(NotImplementedError):  # Windows knows no handlers of a loop
            loop.add_signal_handler(number, end, number)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def _config(app: ASGIApp, listening: Listening, context: ssl.SSLContext | None) -> uvicorn.Config:
    config = uvicorn.Config(
        cast("Any", Forwarded(app, listening.proxies)),
        http=partial(Guarded, listening=listening),  # type: ignore[arg-type]
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        interface="asgi3",
        proxy_headers=False,  # see Forwarded
        timeout_keep_alive=listening.idle,
        timeout_graceful_shutdown=listening.answers,
    )
    config.load()
    config.ssl = context
    return config


class _Server(uvicorn.Server):
    """uvicorn's, stopped by `stopping`, and looking at its connections twice a second."""

    def __init__(self, config: uvicorn.Config, stopping: Stopping, listening: Listening) -> None:
        super().__init__(config)
        self._stopping, self._listening = stopping, listening

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % 5 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                cast("Guarded", connection).look(now)
        return self._stopping.began or await super().on_tick(counter)


# ---------------------------------------------------------------- limits


def dressed(app: ASGIApp, listening: Listening, log: Log, counts: Counts, tenants: Container[str]) -> ASGIApp:
    """The application with its body limit, and every request logged and counted: what a platform gives to `run`."""
    return Observed(Limited(app, listening.most_body), log, counts, tenants)


class Guarded(HttpToolsProtocol):
    """uvicorn's connection, cut when its client sends too slowly, too long a head, or does not read."""

    def __init__(self, *words: Any, listening: Listening, **more: Any) -> None:
        super().__init__(*words, **more)
        self._listening = listening
        self._since: float | None = None  # since when a request is awaited or incomplete
        self._unread: float | None = None  # since when an answer is not read
        self._head = 0  # bytes of an incomplete head; -1 behind it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", _Joined(transport, self.loop))
        self._since = self.loop.time()
        if len(self.connections) > self._listening.most_connections:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._since is None:
            self._since, self._head = self.loop.time(), 0
        super().data_received(data)
        if self._since is not None and self._head >= 0:
            self._head += len(data)
            if self._head > self._listening.most_head:
                fault = TooLarge(f"The request's head has more than {self._listening.most_head} bytes.", "Send less.")
                self._refuse(431, fault)

    def on_headers_complete(self) -> None:
        self._head = -1
        if not self.url.isascii():  # an address has no other bytes (RFC 3986), and nothing behind here expects them
            raise ValueError("the address is not ASCII")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._since, self._head = None, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, Malformed("The request", [Finding("request", "not_http", "It is no HTTP/1.1; correct it.")]))

    def look(self, now: float) -> None:
        """Cut the connection where its client took too long."""
        limits = self._listening
        if self._since is not None:
            longest = limits.slow_request if self._head < 0 else limits.slow_head
            if now - self._since > longest:
                self._refuse(408, TooSlow(f"The request was not there within {longest:g} s.", "Send it faster."))
        if self.flow is not None and self.flow.write_paused:
            self._unread = now if self._unread is None else self._unread
            if now - self._unread > limits.slow_reader:
                self.transport.abort()
        else:
            self._unread = None

    def _refuse(self, status: int, fault: CoflexError) -> None:
        """Answer with a problem, where no answer has begun, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = bytes(answer(fault).body)
            head = f"HTTP/1.1 {status} \r\ncontent-type: application/problem+json\r\ncontent-length: {len(body)}"
            self.transport.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()


class _Joined:
    """A transport that sends head and body of an answer together where both are there in one turn of the loop: one
    call of the system and one packet, and the client wakes once."""

    __slots__ = ("_held", "_loop", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._held = transport, loop, b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
            self._transport.write(data)
        elif data.startswith(b"HTTP/1.1 "):
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class TooSlow(Malformed):
    """A client that sends more slowly than a server can wait."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("The request", [Finding("request", "too_slow", f"{message} {remedy}")])


class Forwarded:
    """uvicorn's reader of X-Forwarded-For and X-Forwarded-Proto, passed by where a request has none of them."""

    def __init__(self, app: ASGIApp, proxies: tuple[str, ...]) -> None:
        self._app, self._behind = app, ProxyHeadersMiddleware(cast("Any", app), list(proxies))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        for name, _ in scope["headers"]:
            if name.startswith(b"x-forwarded-"):
                return self._behind(cast("Any", scope), cast("Any", receive), cast("Any", send))
        return self._app(scope, receive, send)


class Limited:
    """ASGI that takes no body above a limit: refused at its head, or as soon as too much has come."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if int(length) > self._most:
            await self._too_large()(scope, receive, send)
            return
        left = self._most

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise self._too_large_fault()
            return message

        await self._app(scope, counted, send)

    def _too_large_fault(self) -> TooLarge:
        return TooLarge(f"The body has more than {self._most} bytes.", "Send it in smaller parts.")

    def _too_large(self) -> Any:
        response = answer(self._too_large_fault())
        response.headers["connection"] = "close"
        return response
