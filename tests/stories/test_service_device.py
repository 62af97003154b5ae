"""A provider's developer connects a device to the sandbox, with the commands of the documentation (ACT-02, CERT-01)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from signal import SIGTERM
from typing import Any
from uuid import uuid4

import httpx
import pytest

from support.trading import free_port

PAGE = Path(__file__).parents[2] / "docs" / "device.md"
OWNER = "own-001"


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A command of coflex that runs until the end of the block."""
    command = [sys.executable, "-m", "coflex", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.send_signal(SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(true: Callable[[], Any], seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(httpx.TransportError):
            found = true()
            if found:
                return found
        time.sleep(0.1)
    raise AssertionError("it did not come")


def configuration() -> str:
    """The YAML that the documentation shows for the sandbox."""
    text = PAGE.read_text(encoding="utf-8").partition("## Against the sandbox")[2]
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0]


@pytest.mark.spec("ACT-02", "CERT-01", "CERT-02")
def test_a_device_that_is_enrolled_and_started_as_the_documentation_says_is_seen_live_and_certified(
    tmp_path: Path,
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with started("serve", "--data", str(tmp_path / "data"), "--port", str(port)) as service:
        assert service.stdout is not None
        keys = {}
        for line in service.stdout:
            if found := re.match(r"Key of the demo's .* (\S+): (\S+)", line):
                keys[found[1]] = found[2]
            if line.startswith("coflex listens"):
                break
        owner = httpx.Client(
            base_url=f"{url}/v1/demo", headers={"Authorization": f"Bearer {keys[OWNER]}"}, timeout=20, verify=False
        )
        unit = owner.get("/units").json()["items"][0]["id"]

        enrolled = json.loads(coflex("device", "enrol", tmp_path / "device", "--point", 1, "--unit", unit,
                                     "--owner", OWNER, "--json"))  # fmt: skip
        made = owner.post(
            "/devices",
            json={"unit": unit, "public_key": enrolled["public_key"]},
            headers={"Idempotency-Key": uuid4().hex},
        )
        assert made.status_code == 201 and made.json()["point"] == 1
        platform = owner.get("/field").json()
        (tmp_path / "token").write_text(keys[OWNER])
        text = configuration().replace("http://127.0.0.1:8080", url).replace("UNIT", unit)
        config = tmp_path / "device.yaml"
        config.write_text(text.replace("PLATFORM_KEY", platform["key"]).replace("count: 15", "count: 1"))

        with started("device", "run", "--config", str(config)):
            values = until(lambda: owner.get(f"/units/{unit}/live").json()["items"])
        assert values[0]["point"] == 1
        counted = httpx.get(f"{url}/metrics").text
        assert re.search(r'^coflex_ingest_accepted_total{tenant="demo"} [1-9]', counted, re.MULTILINE)
        now = datetime.fromisoformat(owner.get("/time").json()["now"])
        span = {"from": (now - timedelta(minutes=5)).isoformat(), "to": (now + timedelta(minutes=5)).isoformat()}
        certificate = owner.get(f"/units/{unit}/certificate", params=span)
        assert certificate.status_code == 200
        (tmp_path / "proof.json").write_bytes(certificate.content)
        key = owner.get("/measurements/key").text.strip()
        assert "hold" in coflex("verify", tmp_path / "proof.json", "--key", key)
        owner.close()


def coflex(*words: object) -> str:
    done = subprocess.run([sys.executable, "-m", "coflex", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
