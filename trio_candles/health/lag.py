"""How long a live candle took from its close to its arrival: from the journal, or from the day file's last rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from trio_candles.candles.model import MINUTE, Series, day_name
from trio_candles.health.facts import Live, SeriesFacts

__all__ = ["Lags"]


@attrs.define
class Lags:
    """The lag of each series' newest live candle, in ms, looked up once a candle.

    A flush may come at any moment after a candle, and takes the candle out of the journal: a reader that looks every
    few seconds would often find none there.
    """

    _data_dir: Path
    _known: dict[Series, tuple[int, int | None]] = attrs.field(factory=dict)
    """Series -> its newest candle when we last looked, and the lag found."""

    def update(self, facts: Mapping[Series, SeriesFacts]) -> dict[Series, int]:
        """The lags that are known now, in ms. Blocking: opens day files, so *facts* must have been read before."""
        for series, one in facts.items():
            if one.last_candle is None:
                continue
            before = self._known.get(series)
            if before is not None and before[0] == one.last_candle:
                continue
            live = one.live or _newest_stored(self._data_dir, series, one.last_candle)
            lag = None if live is None else live.ingest_time - live.open_time - MINUTE
            self._known[series] = (one.last_candle, lag)
        return {series: lag for series, (_, lag) in self._known.items() if lag is not None and series in facts}


def _newest_stored(data_dir: Path, series: Series, last_candle: int) -> Live | None:
    """The newest WebSocket candle in the last rows of the day file of *last_candle*; ``None`` if unknown."""
    try:
        path = data_dir / series.path / f"{day_name(last_candle)}.parquet"
        with pq.ParquetFile(str(path)) as file:
            if not file.num_row_groups:
                return None
            columns = ["open_time_ms", "ingest_time_ms", "source"]
            rows = file.read_row_group(file.num_row_groups - 1, columns, use_threads=False).to_pylist()
    except (OSError, ValueError, LookupError, pa.ArrowException):
        return None  # a file that is broken is the audit's to find
    for row in reversed(rows):
        opened, came = row["open_time_ms"], row["ingest_time_ms"]
        if row["source"] == "websocket" and isinstance(opened, int) and isinstance(came, int):
            return Live(opened, came)
    return None
