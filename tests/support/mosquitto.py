"""A broker of our own on 127.0.0.1, over TLS with a throw-away authority, which asks its clients for certificates too.

Without mosquitto the test is left out.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "field", "secret of the field"


class Authority:
    """Signs certificates for 127.0.0.1; `ca` is its own, as PEM."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away authority")])
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self._certificate(self._name, self._key, True).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a name, PEM files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, secret = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        made = self._certificate(subject, key, False)
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        for path in (self._folder, certificate, secret):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return certificate, secret

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(self._key, hashes.SHA256())
        )


class Mosquitto:
    """The broker. It keeps nothing over a kill."""

    def __init__(self, folder: Path, lines: tuple[str, ...] = ()) -> None:
        program = shutil.which("mosquitto")
        if program is None:
            pytest.skip("mosquitto is left out: it is not on the path")
        self._program: str = program
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(folder)
        certificate, key = self.authority.issue("broker")
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            self.port, self.tls_port = one.getsockname()[1], other.getsockname()[1]
        users = folder / "users"
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(users), USER, PASSWORD], check=True, capture_output=True)
        users.chmod(0o644)
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            "per_listener_settings true\npersistence false\nlog_dest none\nset_tcp_nodelay true\n"
            + ("user root\n" if os.geteuid() == 0 else "")  # it would give up the right to read its own files
            + "".join(f"{one}\n" for one in lines)
            + f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"listener {self.tls_port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\n"
            "require_certificate true\n"
            f"cafile {self.authority.ca}\ncertfile {certificate}\nkeyfile {key}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen([self._program, "-c", str(self._config)], stderr=subprocess.DEVNULL)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        self.kill()
        pytest.skip("mosquitto is left out: it does not start")

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
        self._process = None

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.ca))


@contextlib.contextmanager
def mosquitto(folder: Path, lines: tuple[str, ...] = ()) -> Iterator[Mosquitto]:
    """A running broker, ended with the test."""
    broker = Mosquitto(folder, lines)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
