"""A moving average that is never computed from a candle that has changed since without saying so.

    python examples/moving_average.py data okx:BTC-USDT --timeframe 5m --periods 20

A line each time when a candle closes, is filled or revised: the average of the closes of the last periods, or that it
is not known, because one of them is not: a gap, or a period in which nothing traded.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from datetime import UTC, datetime

from trio_candles import follow_sync, snapshot

LENGTHS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir")
    parser.add_argument("series", metavar="VENUE:SYMBOL")
    parser.add_argument("--timeframe", default="1m")
    parser.add_argument("--periods", type=int, default=20)
    options = parser.parse_args()
    venue, _, symbol = options.series.partition(":")
    length = int(options.timeframe[:-1]) * LENGTHS[options.timeframe[-1]]

    # What is stored, and the cursor from which it goes on: both of one moment.
    table, cursor = snapshot(options.data_dir, venue, symbol, options.timeframe, columns=["open_time_ms", "close"])
    closes: dict[int, float] = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    newest = max(closes, default=0)

    def show(event: str) -> None:
        window = [closes.get(newest - back * length) for back in range(options.periods)]
        known = [close for close in window if close is not None]
        value = f"{sum(known) / len(known):.8g}" if len(known) == len(window) else "not known"
        time = datetime.fromtimestamp(newest / 1000, UTC)
        print(f"{time:%Y-%m-%d %H:%M} {event:>8} average of {options.periods}: {value}", flush=True)

    show("stored")
    with follow_sync(options.data_dir, [options.series], [options.timeframe], after=cursor) as changes:
        for change in changes:
            if change.candle is not None:  # closed, filled or revised: the value may be new, or another one
                closes[change.open_time_ms] = change.candle.close
                newest = max(newest, change.open_time_ms)
            elif change.event == "gap":  # what was known there is not believed any more
                for begin in range(change.open_time_ms // length * length, change.close_time_ms, length):
                    closes.pop(begin, None)
            else:
                continue
            show(change.event)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
