"""A tenant opens with settings that hold, or not at all, with every fault."""

from __future__ import annotations

from typing import Any

import pytest

from coflex.domain.errors import Conflict, Refused
from coflex.market.design import designs
from coflex.service.machine import Machine, decode, encode
from coflex.service.ports import Command
from support.platform import TENANT, TEST_VERBS, Clock, open_tenant

AT = Clock().at


def opened(**changes: Any) -> Machine:
    form = decode(open_tenant().body, dict) | changes
    machine = Machine(TEST_VERBS)
    machine.apply(Command(TENANT, "tenant.open", "", "", "", "operator", encode(form)), 1, AT)
    return machine


def faults(**changes: Any) -> set[str]:
    with pytest.raises(Refused) as refused:
        opened(**changes)
    return {one.code for one in refused.value.findings}


def test_every_fault_of_the_settings_is_told_at_once() -> None:
    assert faults(zone="Rome", last_day="2015-01-01", sandbox=False, price_limit_eur_mwh="-1") == {
        "unknown_zone",
        "days",
        "price",
        "real_clock",
    }
    assert faults(design="unheard_of") == {"unknown_design"}


@pytest.mark.spec("MKT-01")
def test_a_design_that_the_sessions_of_a_tenant_do_not_hold_is_refused_when_it_opens() -> None:
    held = []
    for design in designs():
        try:
            opened(design=design)
        except Refused as refused:
            assert all(one.place and one.message for one in refused.findings)
        else:
            held.append(design)
    assert "beflexible_six" in held
    assert 0 < len(held) < len(designs())


def test_a_tenant_opens_once() -> None:
    machine = opened()
    with pytest.raises(Conflict):
        machine.apply(open_tenant(), 2, AT)
