"""A small HTTP server on this machine that a test tells what to answer; it keeps what it was sent."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType


@dataclass(frozen=True)
class Got:
    """A request as it came: method, path, headers in lower case, body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answers(number, request)`: status and headers of the n-th request (from 0), or None to say nothing at all."""

    answers: Callable[[int, Got], tuple[int, dict[str, str], bytes] | None] = lambda number, got: (204, {}, b"")
    tls: ssl.SSLContext | None = None
    got: list[Got] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> Receiver:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self._tasks: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in head[1:] if one)}
        got = Got(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))
        self.got.append(got)
        answer = self.answers(len(self.got) - 1, got)
        if answer is None:
            await asyncio.sleep(60)
            return False
        status, more, body = answer
        more = {"Content-Length": str(len(body))} | more
        lines = [f"HTTP/1.1 {status} Answer", *(f"{name}: {value}" for name, value in more.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()
        return True
