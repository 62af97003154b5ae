"""Scheduling units: from the public intent of a balancing service provider to the agreement with the TSO."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.operations import History, Read, Room, Special, Write
from coflex.adapters.web.api.rooms.qualification import set_test
from coflex.register.access import ClientScope
from coflex.register.prequalification import Agreement, ProductTest, SchedulingMember, SchedulingUnit
from coflex.service.verbs.scheduling import SchedulingTestPlan


async def _set_test(desk: Desk, request: Request) -> Response:
    return await set_test(desk, request, "scheduling_test.set", "scheduling_unit", SchedulingTestPlan)


_UNIT = "/scheduling-units/{scheduling_unit}"
_MEMBER = "/scheduling-members/{member}"
_UNITS = {"units": ["UNIT-1"]}
_WHY = {"reason": "Another unit was found."}


def _step(name: str, summary: str, example: Any = None) -> Write:
    """A step of the unit itself: its path is the last part of its verb."""
    path = f"{_UNIT}/{name.replace('_', '-')}"
    return Write("POST", path, f"scheduling_unit.{name}", summary, SchedulingUnit, example=example or {})


ROOM = Room(
    "scheduling units",
    "Units of balancing service providers, from the public intent to the agreement with the TSO.",
    (
        Read("/scheduling-units", SchedulingUnit, "Scheduling units; everybody may know of them.",
             {"bsp": "bsp", "tso": "tso", "status": "status"}),
        Read(_UNIT, SchedulingUnit, "A scheduling unit and how far it has come."),
        History(f"{_UNIT}/history", SchedulingUnit, "Every version of a scheduling unit."),
        Write(
            "POST", "/scheduling-units", "scheduling_unit.declare", "State publicly that a unit is to be created.",
            SchedulingUnit, 201, "/scheduling-units/{id}",
            {"id": "SU-1", "type": "demand", "products": ["reserve"], "tso": "TSO1"},
        ),
        _step("withdraw", "Give a scheduling unit up before it is registered.", _WHY),
        Write("POST", f"{_UNIT}/offers", "scheduling_unit.offer_units", "Offer prequalified units of one's own.",
              list[SchedulingMember], 201, example=_UNITS),
        Write("POST", f"{_UNIT}/requests", "scheduling_unit.ask_for_units", "Ask for units of other providers.",
              list[SchedulingMember], 201, example=_UNITS),
        Read("/scheduling-members", SchedulingMember, "Units in scheduling units, offered or asked for.",
             {"scheduling_unit": "scheduling_unit", "unit": "unit", "provider": "provider", "status": "status"}),
        Read(_MEMBER, SchedulingMember, "A unit in a scheduling unit; the id is scheduling_unit@unit."),
        Write("POST", f"{_MEMBER}/accept", "scheduling_member.accept", "Take a unit in, as the other side.",
              SchedulingMember, example={}),
        Write("POST", f"{_MEMBER}/decline", "scheduling_member.decline", "Do not take it in.", SchedulingMember,
              example=_WHY),
        Write("POST", f"{_MEMBER}/withdraw", "scheduling_member.withdraw", "Take back one's offer or question.",
              SchedulingMember, example=_WHY),
        _step("close", "The BSP has enough; providers are asked to confirm."),
        _step("reopen", "Go on with the acquisition.", _WHY),
        _step("confirm", "Confirm, as the BSP or the provider of an accepted unit."),
        _step("request_tests", "Ask the TSO for the tests.",
              {"up_kw": 500, "down_kw": 0,
               "conditions": ["schedules", "set_points", "real_time_data", "communication"]}),
        _step("take_part", "A connecting operator takes part in the tests."),
        Special(
            "POST", f"{_UNIT}/tests", _set_test, "Set a test under the TSO's supervision.", "scheduling_test_set",
            {201: ProductTest}, body=SchedulingTestPlan, write=True, scope=ClientScope.WRITE,
        ),
        Write(
            "POST", "/scheduling-tests/{test}/answer", "scheduling_test.answer",
            "Upload the measured answer; it is judged at once.", ProductTest, large=True,
            example={"at": ["2026-07-05T10:00:00Z", "2026-07-05T10:01:00Z"], "kw": [0.0, 50.0], "interval_s": 60,
                     "accuracy_percent": 1.0},
        ),
        _step("register", "The TSO confirms that all conditions are fulfilled."),
        _step("refuse", "The TSO does not confirm, and says why.", _WHY),
        Write("POST", f"{_UNIT}/agree", "scheduling_unit.agree", "Sign the agreement, as the TSO or the BSP.",
              Agreement, example={"reference": "BAL-2026-17"}),
        Read("/agreements", Agreement, "Agreements of TSOs and BSPs that concern the caller.",
             {"tso": "tso", "bsp": "bsp"}),
        Read("/agreements/{agreement}", Agreement, "An agreement; the id is tso@bsp."),
        History("/agreements/{agreement}/history", Agreement, "Every version of an agreement."),
    ),
)  # fmt: skip
