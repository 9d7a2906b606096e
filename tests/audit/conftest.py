"""A data directory in which nothing is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from handmade import DAY1, FIRST, MARK, OKX, Directory, minutes

from trio_candles.candles.model import MINUTE


@pytest.fixture
def tmp_path(quick: Path) -> Path:
    """A folder in memory: nothing that the audit finds depends on the disk, and waiting for commits takes long."""
    return quick


@pytest.fixture
def sound(tmp_path: Path) -> Directory:
    """Two hours of OKX over midnight: candles, ten minutes' gap, five empty, two unfillable; and Kraken's."""
    made = Directory(tmp_path / "data")
    okx = made.series(*OKX)
    made.days(*OKX, [t for t in minutes(FIRST, MARK) if not DAY1 + 10 * MINUTE <= t < DAY1 + 27 * MINUTE])
    made.gap(okx, DAY1 + 10 * MINUTE, DAY1 + 20 * MINUTE)
    made.empty(okx, DAY1 + 20 * MINUTE, DAY1 + 25 * MINUTE)
    made.gap(okx, DAY1 + 25 * MINUTE, DAY1 + 27 * MINUTE, "unfillable", "not_collected")
    made.series("kraken", "BTC/USD")
    made.days("kraken", "BTC/USD", minutes(FIRST, MARK))
    return made
