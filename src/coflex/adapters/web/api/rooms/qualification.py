"""Qualification: what the grid lets units do, and what groups have shown that they can deliver."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.endpoints import command_of, version_known, written
from coflex.adapters.web.api.incoming import caller, idempotency_key, json_body, only_parameters, version_read
from coflex.adapters.web.api.operations import History, Read, Room, Special, Write
from coflex.register.access import ClientScope
from coflex.register.prequalification import (
    AnswerRecording,
    GridPrequalification,
    ProductProcedure,
    ProductQualification,
    ProductTest,
)
from coflex.service.machine import decode, encode
from coflex.service.verbs.product_tests import Plan


class GridRequested(msgspec.Struct, frozen=True):
    """Records (unit@operator) whose procedure has begun, and those that waited already."""

    requested: tuple[str, ...]
    waiting: tuple[str, ...]


class InProgress(msgspec.Struct, frozen=True):
    """Records whose static light is being computed."""

    in_progress: tuple[str, ...]


async def set_test(desk: Desk, request: Request, verb: str, name: str, form: type[Any]) -> Response:
    """Set a test. Where the tester gives no seed for random set points, chance gives one: 32 bits of a digest of the
    tester's key, which nobody else knows, so that the request asked again is the same one."""
    who = await caller(desk, request, ClientScope.WRITE)
    only_parameters(request, ())
    key, expects = idempotency_key(request), version_read(request, False)
    plan = decode(await json_body(request), form)
    if plan.seed is None:
        drawn = sha256(f"{who.tenant}\n{who.by}\n{key}".encode()).digest()
        plan = msgspec.structs.replace(plan, seed=int.from_bytes(drawn[:4], "big"))
    subject = request.path_params[name]
    expects = version_known(desk, who, desk.machine.verbs[verb].kind, subject, expects)
    receipt = await desk.submit(command_of(who, verb, subject, encode(plan), key, expects, plan))
    return written(receipt, who.tenant, "/product-tests/{id}")


async def _set_test(desk: Desk, request: Request) -> Response:
    return await set_test(desk, request, "product_test.set", "qualification", Plan)


_WHY = {"reason": "The meter was replaced."}

GRID = Room(
    "grid prequalification",
    "One request of the provider, forwarded to every system operator concerned, and each one's answer.",
    (
        Read(
            "/grid-prequalifications", GridPrequalification, "Units before their system operators.",
            {"unit": "unit", "operator": "operator", "provider": "provider", "status": "status"},
        ),
        Read("/grid-prequalifications/{prequalification}", GridPrequalification,
             "A unit before one system operator; the id is unit@operator."),
        History("/grid-prequalifications/{prequalification}/history", GridPrequalification,
                "Every version of the procedure, with the answers given."),
        Write(
            "POST", "/grid-prequalifications", "grid_prequalification.request",
            "Ask every system operator concerned what its grid lets units do.", GridRequested, 201,
            example={"units": ["UNIT-1"]},
        ),
        Write(
            "POST", "/grid-checks", "grid_check.request",
            "Have the static light of units computed, all together or one by one.", InProgress,
            example={"mode": "all_together"},
        ),
        Write(
            "POST", "/grid-prequalifications/{prequalification}/answer", "grid_prequalification.answer",
            "Answer a unit by the operator's own study.", GridPrequalification,
            example={"status": "approved", "reason": "The feeder has room.", "proof": "Study 2026-14."},
        ),
    ),
)  # fmt: skip

PRODUCT = Room(
    "product qualification",
    "Groups show by test, or by the table of equivalences, that they can deliver a product.",
    (
        Read(
            "/product-qualifications", ProductQualification, "Groups and the products they qualify for.",
            {"group": "group", "product": "product", "provider": "provider", "status": "status"},
        ),
        Read("/product-qualifications/{qualification}", ProductQualification,
             "A group and a product; the id is group@product."),
        History("/product-qualifications/{qualification}/history", ProductQualification,
                "Every version of a qualification."),
        Write(
            "POST", "/product-qualifications", "product_qualification.request", "Ask for a qualification.",
            ProductQualification, 201, "/product-qualifications/{id}",
            {"group": "GROUP-1", "product": "local-energy", "up_kw": 300, "down_kw": 0},
        ),
        Write(
            "POST", "/product-equivalences", "product_qualification.apply_equivalence",
            "Let a passed qualification count for another product, where its requirements hold the other's.",
            ProductQualification, 201, "/product-qualifications/{id}",
            {"source": "GROUP-1@local-energy", "group": "GROUP-2", "product": "local-reserve"},
        ),
        Write(
            "POST", "/product-qualifications/{qualification}/grant-temporarily",
            "product_qualification.grant_temporarily", "Let a group offer for a time before it is tested.",
            ProductQualification, example={"until": "2026-09-01T00:00:00Z", "reason": "The test bench is being built."},
        ),
        Write(
            "POST", "/product-qualifications/{qualification}/revoke", "product_qualification.revoke",
            "Take a qualification back.", ProductQualification, example=_WHY,
        ),
        Special(
            "POST", "/product-qualifications/{qualification}/tests", _set_test, "Set a test.", "product_test_set",
            {201: ProductTest}, body=Plan, write=True, scope=ClientScope.WRITE,
        ),
        Read(
            "/product-tests", ProductTest, "Tests.",
            {"product": "product", "provider": "provider", "tester": "tester", "subject_id": "subject_id"},
        ),
        Read("/product-tests/{test}", ProductTest, "A test: its signal, what it asks, and the verdict."),
        Write(
            "PUT", "/product-tests/{test}/baseline", "product_test.nominate",
            "State the power without the test, before it begins.", ProductTest,
            example={"baseline": [{"at_s": 0, "kw": -120.0}]},
        ),
        Write(
            "POST", "/product-tests/{test}/answer", "product_test.answer",
            "Upload the measured answer; it is judged at once.", ProductTest,
            example={"at": ["2026-07-05T10:00:00Z", "2026-07-05T10:01:00Z"], "kw": [0.0, 50.0], "interval_s": 60,
                     "accuracy_percent": 1.0},
            large=True,
        ),
        Write("POST", "/product-tests/{test}/cancel", "product_test.cancel", "Take back a test without a verdict.",
              ProductQualification, example=_WHY),
        Read("/answers", AnswerRecording, "Measured answers to tests."),
        Read("/answers/{test}", AnswerRecording, "The measured answer to a test."),
        Read("/product-procedures", ProductProcedure, "How products are tested."),
        Read("/product-procedures/{product}", ProductProcedure, "How a product is tested."),
        Write(
            "PUT", "/product-procedures/{product}", "product_procedure.set", "Set how a product is tested.",
            ProductProcedure, example={"service": "congestion_management", "signals": ["step"]}, match=False,
        ),
    ),
)  # fmt: skip
