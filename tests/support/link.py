"""A link to a PostgreSQL server that tests can cut: a proxy on 127.0.0.1 that passes bytes on until told not to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from sqlalchemy.engine import make_url

COMMIT = b"COMMIT"


class Link:
    """`url` leads to the server of `server_url` through here.

    `fault` says what happens to the bytes of a client that hold `marker` (then the fault is over):

        before        neither they nor anything else goes on: both ends are closed
        during        they go on, and both ends are closed at once
        after         they go on; when the answer comes, both ends are closed instead of passing it
        silent before they do not go on, and nobody is told
        silent after  they go on; the answer stays here, and nobody is told

    `budget`: bytes, of both directions, after which everything is closed.
    """

    def __init__(self, server_url: str) -> None:
        url = make_url(server_url)
        folder = url.query.get("host")
        path = url.query.get("unix_sock") or (f"{folder}/.s.PGSQL.{url.port or 5432}" if folder else None)
        self._server: str | tuple[str, int] = str(path) if path else (url.host or "127.0.0.1", url.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = url.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
        self.fault = ""
        self.marker = COMMIT
        self.budget: int | None = None
        self.refuses = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        _close(self._listener)
        self.cut()

    def cut(self) -> None:
        """Close every connection there is."""
        while self._pairs:
            for end in self._pairs.pop():
                _close(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                _close(client)
                continue
            family = socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET
            server = socket.socket(family)
            server.connect(self._server)
            for end in (client, server):
                if end.family == socket.AF_INET:
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((client, server))
            state = _Passing(self, client, server)
            for pump in (state.ask, state.answer):
                threading.Thread(target=pump, daemon=True).start()


class _Passing:
    """The bytes of one connection."""

    def __init__(self, link: Link, client: socket.socket, server: socket.socket) -> None:
        self.link, self.client, self.server = link, client, server
        self.withheld = False
        self.fault = ""

    def ask(self) -> None:
        self._pump(self.client, self._asked)

    def answer(self) -> None:
        self._pump(self.server, self._answered)

    def _pump(self, end: socket.socket, act: Callable[[bytes], bool]) -> None:
        while True:
            try:
                data = end.recv(65536)
            except OSError:
                data = b""
            if not data or not act(data):
                break
        if not self.withheld:
            self._close()

    def _asked(self, data: bytes) -> bool:
        link = self.link
        if link.fault and link.marker in data:
            self.fault, link.fault = link.fault, ""
        if self.fault == "before":
            return False
        if self.fault == "silent before" or self.withheld:
            self.withheld = True
            return True
        self.withheld = self.fault == "silent after"
        return self._pass(self.server, data) and self.fault != "during"

    def _answered(self, data: bytes) -> bool:
        if self.fault == "after":
            return False
        return self.withheld or self._pass(self.client, data)

    def _pass(self, to: socket.socket, data: bytes) -> bool:
        link = self.link
        if link.budget is not None:
            if len(data) >= link.budget:
                data, link.budget = data[: link.budget], None
                _send(to, data)
                return False
            link.budget -= len(data)
        return _send(to, data)

    def _close(self) -> None:
        _close(self.client)
        _close(self.server)


def _send(to: socket.socket, data: bytes) -> bool:
    try:
        to.sendall(data)
    except OSError:
        return False
    return True


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
