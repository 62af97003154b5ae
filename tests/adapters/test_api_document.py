"""The API is what its document says: fresh, valid, with examples that are taken; the first hour runs as it is told."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import jsonschema_rs
import pytest

from coflex.adapters.web.api.app import rooms_of
from coflex.adapters.web.api.operations import Read
from coflex.adapters.web.api.problems import TABLE
from coflex.register.fields import paths
from coflex.service.machine import decode, encode
from coflex.service.verbs import VERBS
from support.api import Api
from support.api_world import others
from support.platform import key_of, put

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("openapi", ROOT / "tools" / "openapi.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def document(tool: ModuleType) -> dict[str, Any]:
    made: dict[str, Any] = tool.document()
    return made


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            yield f"{method.upper()} {path}", told


# ---------------------------------------------------------------- fresh


@pytest.mark.spec("PLAT-01")
def test_the_document_in_the_repository_is_that_of_the_code(tool: ModuleType, document: dict[str, Any]) -> None:
    kept = json.loads(tool.DOCUMENT.read_text(encoding="utf-8"))
    changed, broken = tool.differences(kept, document), tool.breaking(kept, document)
    assert broken == [], "clients would break: these need a new prefix beside /v1"
    assert changed == [], "run python tools/openapi.py"
    assert tool.document_text(document) == tool.DOCUMENT.read_text(encoding="utf-8")
    assert tool.page_text(PAGE, document) == PAGE, "run python tools/openapi.py"


def test_every_platform_has_the_same_document(document: dict[str, Any]) -> None:
    def plain(made: dict[str, Any]) -> dict[str, Any]:
        made = deepcopy(made)
        made["paths"]["/v1/{tenant}/unit-imports"]["post"]["requestBody"]["content"] = {}  # as its readers are
        return made

    assert plain(json.loads(encode(Api().document))) == plain(document)


def without(made: dict[str, Any], *place: Any) -> dict[str, Any]:
    made = deepcopy(made)
    inner = made
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    return made


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        (("paths", "/v1/{tenant}/units"), "GET /v1/{tenant}/units is gone"),
        (("paths", "/v1/{tenant}/units", "post"), "POST /v1/{tenant}/units is gone"),
        (("paths", "/v1/{tenant}/units", "post", "responses", "201"), "POST /v1/{tenant}/units answers 201 no more"),
        (("components", "schemas", "UnitShown", "properties", "up_kw"), "UnitShown has lost 'up_kw'"),
    ],
)  # fmt: skip
def test_what_would_break_a_client_is_named(
    tool: ModuleType, document: dict[str, Any], place: tuple[str, ...], sentence: str
) -> None:
    poorer = without(document, *place)
    assert sentence in tool.breaking(document, poorer)
    assert tool.breaking(poorer, document) == [] and tool.breaking(document, document) == []


def test_what_is_newly_asked_for_breaks_clients_too(tool: ModuleType, document: dict[str, Any]) -> None:
    stricter = deepcopy(document)
    unit = stricter["paths"]["/v1/{tenant}/units"]
    unit["post"]["parameters"].append({"in": "header", "name": "X", "required": True})
    stricter["components"]["schemas"]["UnitForm"]["required"].append("element")
    stricter["components"]["schemas"]["UnitStatus"]["enum"].remove("active")
    assert tool.breaking(document, stricter) == [
        "POST /v1/{tenant}/units asks for X in the header",
        "UnitForm asks for 'element'",
        "UnitStatus knows the word 'active' no more",
    ]


# ---------------------------------------------------------------- sound


def test_every_reference_leads_to_something_and_every_name_is_one_things(document: dict[str, Any]) -> None:
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        found: Any = document
        for key in reference.split("/"):
            found = found[key]
        assert found
    ids = [told["operationId"] for _, told in operations(document)]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in document["tags"]}
    assert all(set(told["tags"]) <= tags and told["summary"] for _, told in operations(document))


@pytest.mark.spec("PLAT-01")
def test_its_schemas_are_json_schemas_by_an_outside_judge(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_every_example_fits_its_schema_and_is_taken_by_its_verb(document: dict[str, Any]) -> None:
    forms = {name.replace(".", "_"): verb.form for name, verb in VERBS.items()}
    count = 0
    for name, told in operations(document):
        content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" not in content:
            continue
        schema = {**content["schema"], "components": document["components"]}
        assert jsonschema_rs.is_valid(schema, content["example"]), name
        decode(json.dumps(content["example"]).encode(), forms[told["operationId"]])
        count += 1
    assert count > 50


def test_every_filter_of_a_list_is_a_field_of_its_records() -> None:
    api = Api(units=1, providers=1)
    reads = [one for room in rooms_of(api.accounts, api.starlette.state.bell, {}) for one in room.operations
             if isinstance(one, Read)]  # fmt: skip
    assert len(reads) > 40
    assert [(one.path, path) for one in reads for path in one.filters.values() if path not in paths(one.kind)] == []


def test_every_code_of_a_problem_stands_under_its_status(document: dict[str, Any]) -> None:
    for code, kind in TABLE.items():
        assert f"`{code}`" in document["components"]["responses"][f"Problem{kind.status}"]["description"]


@pytest.mark.spec("PLAT-01")
def test_every_verb_that_a_party_may_ask_for_has_its_address(document: dict[str, Any]) -> None:
    inside = {"grant.open", "grant.refresh", "grant.end", "user.sign_out"}  # of the issuer of tokens
    named = {
        "party.erase_personal": "person_erase", "units.import": "units_import", "offer.submit": "offer_submit",
        "offer.replace": "offer_replace", "offer.withdraw": "offer_withdraw",
    }  # fmt: skip
    ids = {told["operationId"] for _, told in operations(document)}
    asked = {name for name, verb in VERBS.items() if (verb.roles or verb.public)} - inside
    assert {name for name in asked if named.get(name, name.replace(".", "_")) not in ids} == set()


def test_the_page_for_people_has_every_operation_and_needs_no_other_server() -> None:
    api = Api(units=1, providers=1)
    with httpx.Client(base_url="http://test", transport=Through(api)) as http:
        page = http.get("/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert http.get("/docs", headers={"If-None-Match": page.headers["etag"]}).status_code == 304
        assert http.get("/openapi.json").json() == json.loads(encode(api.document))
    for _, told in operations(api.document):
        assert f'id="{told["operationId"]}"' in page.text
    assert "<code>Idempotency-Key</code>" in page.text and "`Idempotency-Key`" not in page.text
    assert "<script" not in page.text and not re.search(r'(src|href)="(https?:)?//', page.text)


# ---------------------------------------------------------------- the first hour


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


class Through(httpx.BaseTransport):
    """The way from a client of httpx straight into the platform."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read()

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self._api.app)) as http:
                return await http.request(request.method, request.url, content=body, headers=request.headers)

        found = asyncio.run(ask())
        return httpx.Response(found.status_code, headers=found.headers, content=found.content)


@pytest.mark.spec("PLAT-01")
def test_the_first_hour_runs_as_it_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    api = Api(units=6, providers=2)
    api.sequencer.submit(put(others()))
    space: dict[str, Any] = {"PROVIDER_KEY": key_of("sp-1"), "OPERATOR_KEY": key_of("mo")}
    monkeypatch.setattr(httpx, "Client", partial(httpx.Client, transport=Through(api)))
    for block in blocks(PAGE):
        exec(compile(block, "docs/api.md", "exec"), space)
    told = capsys.readouterr().out
    assert space["taken"].status_code == 201 and space["taken"].json()["accepted"] == 1
    assert "48.50 EUR/MWh" in told and "approved" in told and "prodct" in told
    assert space["kinds"][-1] == "unit.changed"
