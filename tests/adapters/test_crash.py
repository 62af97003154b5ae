"""What a kill -9 leaves: every acknowledged order, once, in a chain without a gap (PLAT-05)."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.crash import CLIENTS, Campaign
from support.postgres import emptied
from support.trading import Trading, free_port

KILLS = 200


@pytest.mark.spec("PLAT-05")
@pytest.mark.parametrize("seed", [200, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 5))])
def test_every_acknowledged_order_is_there_once_after_each_kill(tmp_path: Path, seed: int) -> None:
    """Two hundred kills of a platform; with the slow ones a thousand, of five."""
    campaign = Campaign(Trading(tmp_path, free_port(), CLIENTS), seed=seed)
    campaign.run(KILLS)
    assert campaign.kills == KILLS
    assert len(campaign.answers) > 3 * KILLS


@pytest.mark.spec("PLAT-04", "PLAT-05")
@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_the_same_holds_in_postgresql(tmp_path: Path, kills: int, postgresql: str) -> None:
    campaign = Campaign(Trading(tmp_path, free_port(), CLIENTS, url=emptied(postgresql)), seed=kills)
    campaign.run(kills)
    assert campaign.kills == kills
    assert len(campaign.answers) > 3 * kills
