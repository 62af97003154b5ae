"""A NATS server of our own on 127.0.0.1 with JetStream in a folder. Without nats-server the test is left out."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


class NatsServer:
    """The server, started and killed; what it stored stays."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("nats-server")
        if program is None:
            pytest.skip("NATS is left out: nats-server is not on the path")
        with socket.create_server(("127.0.0.1", 0)) as one:
            self.port = one.getsockname()[1]
        self._command = [program, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(folder), "-l", "/dev/null"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(250):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        self.kill()
        pytest.skip("NATS is left out: nats-server does not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
        self._process = None


@contextmanager
def nats_server(folder: Path) -> Iterator[NatsServer]:
    """A running server, ended with the test."""
    server = NatsServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
