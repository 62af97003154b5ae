"""Requests made from the document at random, sound and unsound: no failure, and no answer that it does not tell."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from coflex.adapters.web.api.desk import Desk
from coflex.domain.party import Role
from support.api import PARTY_OF, Api
from support.api_requests import Operation, dry, operations, status, table
from support.platform import FIRST, key_of

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
# What is there, by the name under which paths have it.
THERE = {
    "tenant": ["demo"], "party": ["sp-1", "dso", "owner"], "unit": ["cu-0001", "cu-0002"], "point": ["pod-0001"],
    "group": ["sp-1-local"], "product": ["local_energy", "global_energy"], "session": [FIRST],
    "prequalification": ["cu-0001@dso"], "qualification": ["sp-1-local@local_energy"], "perimeter": ["per-1"],
    "consent": ["consent-cu-0001"], "client": ["client-sp-1"], "user": ["user-sp-1"], "webhook": ["webhook-sp-1"],
    "holder": ["client-sp-1"], "proposal": ["proposal-mo"], "design": ["beflexible_six"], "issuer": ["issuer-1"],
    "test": ["test-1", "test-2"], "scheduling_unit": ["su-1", "su-2", "su-3", "su-4"], "member": ["su-1@cu-0001"],
    "agreement": ["tso@sp-1"], "offer": ["o-1"],
    "activation": ["activation-sp-1", "activation-dso"], "set_point": ["activation-sp-1.cu-act"],
    "backup": ["backup-1"], "regulation": ["regulation-sp-1", "regulation-tso"], "device": ["device-1"],
    "data_grant": ["data-grant-owner"],
    "metered_day": ["cu-act@2016-07-05"], "baseline_day": ["cu-act@2016-07-05"], "settlement": ["2016-07-05.1"],
    "period": ["2016-07-05", "2016-07", "2016-06"], "statement": ["2016-07-05.1.sp-1"], "invoice": ["invoice-sp-1"],
    "dispute": ["dispute-sp-1", "dispute-mo"], "owner_contract": ["owner-contract-1"],
    "shared_purchase": ["shared-purchase-dso", "shared-purchase-tso"],
    "ready_day": ["sp-1-local@2016-07-05"],
}  # fmt: skip
PARTIES = ("mo", "sp-1", "dso", "tso", "owner", "ro")
QUIET: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def aimed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with names in paths that are there, or not, so that requests come further than to 404."""
    aimed = deepcopy(document)
    for methods in aimed["paths"].values():
        for told in methods.values():
            for parameter in told.get("parameters", ()):
                if parameter["in"] == "path":
                    name = parameter["name"]
                    parameter["schema"] = {"enum": THERE[name] + ([] if name == "tenant" else ["nothing"])}
                elif parameter["name"] in ("If-Match", "If-None-Match"):
                    parameter["schema"] = {"enum": ["*", '"3"', '"99"']}
                elif parameter["name"] == "On-Behalf-Of":
                    parameter["schema"] = {"enum": ["sp-1", "nobody"]}
    del aimed["paths"]["/v1/{tenant}/events/stream"]["get"]  # it never ends
    return aimed


def operations_of(api: Api) -> list[Any]:
    schema = schemathesis.openapi.from_dict(aimed(api.document))
    schema.app = api.starlette
    return [one.ok() for one in schema.get_all_operations() if "/oauth/" not in one.ok().path]


def ask(case: Any, party: str, seen: Counter[int]) -> None:
    response = case.call(headers={"Authorization": f"Bearer {key_of(party)}"})
    seen[response.status_code] += 1
    if "?" in case.formatted_path and response.status_code == 405:
        return  # what is no text was drawn for an address, and ended it: it is that of nobody's operation
    case.validate_response(response, checks=CHECKS)


def requests_to(operations: list[Any], count: int, act: Callable[[Any, str], None], **more: Any) -> None:
    """Draw so many requests, each to one of the operations, sound or not, as one of the parties."""

    @settings(max_examples=count, **QUIET, **more)
    @given(st.data(), st.sampled_from(operations), st.sampled_from(list(GenerationMode)), st.sampled_from(PARTIES))
    def run(data: st.DataObject, operation: Any, mode: GenerationMode, party: str) -> None:
        act(data.draw(operation.as_strategy(generation_mode=mode)), party)

    run()


@pytest.mark.spec("PLAT-01")
def test_requests_at_random_are_answered_as_the_document_says() -> None:
    api, seen = dry(), Counter[int]()
    operations = operations_of(api)
    # What costs is the first request to each; the slow test asks all of them.
    requests_to(operations[::16], 30, lambda case, party: ask(case, party, seen), derandomize=True)
    assert seen.total() >= 30 and len(seen) > 3


@pytest.mark.slow
@pytest.mark.spec("PLAT-01")
def test_twenty_thousand_requests_at_random_are_answered_as_the_document_says() -> None:
    api, seen = dry(), Counter[int]()
    api.desk.__class__ = Desk
    operations = operations_of(api)
    while seen.total() < 20_000:
        # The state goes on: nothing is shrunk, since the same request finds another state.
        requests_to(operations, 2_000, lambda case, party: ask(case, party, seen), phases=[Phase.generate])
    assert {200, 201, 400, 403, 404, 422} <= set(seen)


# ---------------------------------------------------------------- along the links of the document


def linked(document: dict[str, Any], sound: dict[str, Operation]) -> dict[str, Any]:
    """Of the document what makes something and what reads it, with bodies that are sound."""
    made = aimed(document)
    answers = [(told, answer) for methods in made["paths"].values() for told in methods.values()
               for answer in told["responses"].values() if "links" in answer]  # fmt: skip
    kept = {told["operationId"] for told, _ in answers} | {one["links"]["made"]["operationId"] for _, one in answers}
    for told, _ in answers:
        told["requestBody"]["content"]["application/json"]["schema"] = {"enum": [sound[told["operationId"]].body]}
    for path, methods in list(made["paths"].items()):
        made["paths"][path] = {key: told for key, told in methods.items() if told["operationId"] in kept}
    return made


@pytest.mark.slow
@pytest.mark.spec("PLAT-01")
def test_what_was_made_is_read_along_the_links_of_the_document() -> None:
    api = dry()
    api.desk.__class__ = Desk
    sound = {one.id: one for one in operations(api.document)}
    schema = schemathesis.openapi.from_dict(linked(api.document, sound))
    schema.app = api.starlette
    schema.config.generation.update(modes=[GenerationMode.POSITIVE])
    seen = Counter[tuple[str, int]]()

    class Links(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            party = PARTY_OF[asker(sound[case.operation.definition.raw["operationId"]])]
            return {"headers": {"Authorization": f"Bearer {key_of(party)}"}}

        def validate_response(self, response: Any, case: Any, **more: Any) -> None:
            seen[case.operation.label, response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

    Links.run(settings=settings(max_examples=60, stateful_step_count=6, phases=[Phase.generate], **QUIET))
    assert {200, 201} <= {status for _, status in seen}


# ---------------------------------------------------------------- sound bodies with one odd value

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 10**15, -(10**15), 1e-300, 1.5, "", "x" * 300, "NaN", "Infinity", "-1e999999", "1e-999999",
    "0.1234567890123456789012345678", "2016-07-05T10:00:00", "2016-07-05T10:00:00Z", "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "9999-12-31", "0001-01-01", "\U0001f642", "a\nb", "\u202e",
    "..", "*", [], {}, [[]], ["a", "a"], "cu-0001", "sp-1", [None], "demo/../x", "P1D",
)  # fmt: skip


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, itself too."""
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*place, key))


def with_odd(value: Any, place: tuple[Any, ...], odd: Any) -> Any:
    if not place:
        return odd
    copy = value.copy()
    copy[place[0]] = with_odd(value[place[0]], place[1:], odd)
    return copy


async def failures(api: Api, stride: int) -> list[str]:
    """Every n-th odd value at every place of every body, asked by somebody who may."""
    found = []
    count = 0
    async with api.http(None) as http:
        for one in operations(api.document):
            for place in places(one.body) if one.body is not None else ():
                for odd in ODD:
                    count += 1
                    if count % stride:
                        continue
                    asked = replace(one, body=with_odd(one.body, place, odd))
                    party = PARTY_OF[asker(one)]
                    got = await status(http, asked, party, f"client-{party}")
                    if got >= 500:
                        found.append(f"{one.id}, {place}, {odd!r}: {got}")
    return found


def asker(one: Operation) -> Role:
    """A role that may ask for it."""
    may = [role for role, cell in table()[one.id].items() if cell]
    return Role.SERVICE_PROVIDER if Role.SERVICE_PROVIDER in may else may[0]


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_no_odd_value_anywhere_in_a_sound_body_makes_the_platform_fail(stride: int) -> None:
    assert asyncio.run(failures(dry(), stride)) == []
