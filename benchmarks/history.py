"""Data directories of sealed days, made quickly: what the other benchmarks measure a long history with.

Every file is, byte for byte, what the collector's encoder makes of its rows: one series-day is encoded for each venue,
day and timeframe, and the files of the other series differ from it in the names only, which are put in their places
(the first of each is compared with what the encoder makes of it). A series' prices are the same each day, and those of
any other series: only the times and the names differ. The ledger's rows are made by the store's own codec.

    python benchmarks/history.py --dir year                     # 60 series, 365 days, aggregates: 131,400 files
    python benchmarks/history.py --dir thin --series 5 --thin 5 --days 30 --no-aggregates
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import attrs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trio_candles.candles.aggregation import DayOfMinutes, Kinds, aggregates, periods_of
from trio_candles.candles.model import DAY, MINUTE, Candle, Millis, Series, Source, Timeframe
from trio_candles.store import dayfiles
from trio_candles.store.accounts import EMPTY, SEALED, STORED, Account, SealedDay, sealed_row, shape_of
from trio_candles.store.dayfiles import DayFile
from trio_candles.store.schema import JOURNAL, TIMEFRAMES, WAITS, digest_of
from trio_candles.store.store import open_store

BEGIN = Millis(1_735_689_600_000)
"""2025-01-01."""
HIGHER = ("5m", "15m", "1h", "4h", "1d")
MINUTES = DAY // MINUTE
LETTERS = {False: STORED * MINUTES, True: (STORED + EMPTY) * (MINUTES // 2)}
"""Whether a series is thin -> each of its days: a thin one trades every other minute."""
WHY_EMPTY = "ids 1000 and 1001 are neighbours"
VENUES = {"coinbase": "C{:03}-USD", "kraken": "K{:03}/USD", "okx": "O{:03}-USDT"}


def names(count: int) -> list[Series]:
    """*count* series, of three venues in turn."""
    venues = [*VENUES.items()]
    return [Series(venue, symbol.format(n)) for n in range(count) for venue, symbol in [venues[n % len(venues)]]]


def make_sealed(
    root: Path,
    series: Sequence[Series],
    days: int,
    *,
    thin: Collection[Series] = (),
    aggregates: bool = True,
    begin: Millis = BEGIN,
) -> int:
    """Make *root*, which is not there yet, a data directory with *days* sealed days of each of *series*, from the UTC
    day *begin* on, as a collector leaves one that stopped at the end of the last day. Returns the number of files.

    Those of *series* that are *thin* have a candle every other minute, the others one every minute. With *aggregates*
    there are files of the default timeframes, else there are minutes only.
    """
    root.mkdir(parents=True)
    higher = HIGHER if aggregates else ()
    end = Millis(begin + days * DAY)
    with open_store(root) as store:
        store.claim("real", speed=1.0, pivot=0.0)
        store.aggregate(tuple(higher))
        store.expect(series, begin, begin)
        store.stopped(end)
    with closing(sqlite3.connect(root / JOURNAL)) as database, database:
        ids = {
            (venue, symbol): id_
            for id_, venue, symbol in database.execute("SELECT id, venue, symbol FROM series WHERE timeframe = '1m'")
        }
        maker = _Maker(root, series, thin, higher)
        for day in range(begin, end, DAY):
            database.executemany(
                f"INSERT INTO sealed (series_id, {SEALED}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(ids[one.account.series.venue, one.account.series.symbol], *sealed_row(one))
                 for one in maker.day(Millis(day))],
            )  # fmt: skip
        database.execute("DELETE FROM open_day")
        for one in series:
            last = end - MINUTE * (2 if one in thin else 1)
            where = (end, last, ids[one.venue, one.symbol])
            database.execute("UPDATE series SET mark_ms = ?, last_candle_ms = ? WHERE id = ?", where)
        database.execute("INSERT OR REPLACE INTO confirmed SELECT id, mark_ms, 0 FROM series WHERE timeframe = '1m'")
        database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (TIMEFRAMES, ",".join(higher)))
        database.execute("DELETE FROM meta WHERE key = ?", (WAITS,))
    return maker.files


# --- the files --------------------------------------------------------------------------------------------


def _rows(one: Series, letters: str, higher: Sequence[str]) -> dict[str, pa.Table]:
    """Timeframe -> the rows of *one*'s day at time 0, whose minutes are *letters*."""
    chance, price = random.Random(14), 40_000.0
    minutes = []
    for minute, letter in enumerate(letters):
        opened, price = price, round(max(1.0, price + chance.gauss(0, 12)), 1)
        if letter != STORED:
            continue
        at, high = minute * MINUTE, round(max(opened, price) + chance.random() * 9, 1)
        low = round(min(opened, price) - chance.random() * 9, 1)
        volume = round(chance.expovariate(1 / 8) + 1e-6, 8)
        vwap = round((high + low) / 2, 4)
        minutes.append(
            Candle(
                one, Millis(at), opened, high, low, price, volume, volume * vwap, vwap, chance.randrange(1, 400),
                Source.WEBSOCKET, Millis(at + MINUTE + 20 + chance.randrange(900)), Millis(at + MINUTE),
            )
        )  # fmt: skip
    kinds, columns = Kinds(Millis(0)), DayOfMinutes.of(minutes)
    kinds.empty(0, DAY)
    kinds.stored_at(candle.open_time for candle in minutes)
    found = {"1m": dayfiles.table_of(minutes)}
    for name in higher:
        folded = attrs.evolve(one, timeframe=name)
        periods = periods_of(Timeframe.parse(name), [(0, DAY)], Millis(0))
        found[name] = dayfiles.table_of([*aggregates(columns, kinds, folded, periods)])
    return found


def _at(table: pa.Table, day: int) -> pa.Table:
    """*table*, of a day at time 0, with the times of *day*."""
    for name in ("open_time_ms", "close_time_ms", "ingest_time_ms"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pc.add(table.column(name), day))
    return table


@attrs.frozen
class _Template:
    """An encoded file, and where in it the names are."""

    content: bytes
    symbol: slice
    """The page that has the column's one value."""
    footer: int

    @classmethod
    def of(cls, content: bytes) -> _Template:
        column = pq.read_metadata(pa.BufferReader(content)).row_group(0).column(1)
        length = int.from_bytes(content[-8:-4], "little")
        return cls(content, slice(column.dictionary_page_offset, column.data_page_offset), len(content) - 8 - length)

    def page(self) -> bytes:
        return self.content[self.symbol]

    def with_names(self, page: bytes, old: Series, new: Series) -> bytes:
        """The content for *new*, whose *page* that is, in place of *old*."""
        footer = _renamed(self.content[self.footer :], old, new)
        begin = footer.index(b"/////", footer.index(b"ARROW:schema"))
        end = next(at for at in range(begin, len(footer)) if footer[at] not in _BASE64)
        schema = base64.b64encode(_renamed(base64.b64decode(footer[begin:end]), old, new))
        footer = footer[:begin] + schema + footer[end:]
        before, after = self.content[: self.symbol.start], self.content[self.symbol.stop : self.footer]
        return b"".join((before, page, after, footer))


_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


def _renamed(metadata: bytes, old: Series, new: Series) -> bytes:
    """*metadata*, JSON among other things, with the names of *new* in the places of those of *old*."""
    for text in ('"symbol": "{0.symbol}"', '"folder": "{0.folder}"'):
        metadata = metadata.replace(text.format(old).encode(), text.format(new).encode())
    return metadata


@attrs.define
class _Mould:
    """Series whose files differ in their names only, and in no length."""

    first: Series
    thin: bool
    rows: Mapping[str, pa.Table]
    """Timeframe -> the rows of *first*'s day at time 0."""
    pages: dict[tuple[Series, str], bytes] = attrs.field(factory=dict)
    """Series and timeframe -> its column of names, encoded."""
    members: list[Series] = attrs.field(factory=list)


class _Maker:
    """Writes day files, and says what the ledger has to know of them."""

    def __init__(self, root: Path, series: Sequence[Series], thin: Collection[Series], higher: Sequence[str]) -> None:
        self._root, self._higher = root, higher
        self.files = 0
        self._moulds: list[_Mould] = []
        for one in series:
            self._put_into_mould(one, one in thin)
            for name in ("1m", *higher):
                (root / attrs.evolve(one, timeframe=name).path).mkdir(parents=True, exist_ok=True)

    def _put_into_mould(self, one: Series, thin: bool) -> None:
        rows = _rows(one, LETTERS[thin], self._higher)
        pages = {(one, name): _Template.of(self._encoded(one, name, table, 0, thin)).page() for name, table in
                 rows.items()}  # fmt: skip
        for mould in self._moulds:
            same = (one.venue, thin, len(one.symbol)) == (mould.first.venue, mould.thin, len(mould.first.symbol))
            if same and all(len(page) == len(mould.pages[mould.first, name]) for (_, name), page in pages.items()):
                break
        else:
            mould = _Mould(one, thin, rows)
            self._moulds.append(mould)
        mould.pages |= pages
        if mould.first != one and len(mould.members) == 1:  # the promise that they differ in nothing else
            for name, table in rows.items():
                template = _Template.of(self._encoded(mould.first, name, mould.rows[name], 0, thin))
                made = template.with_names(pages[one, name], mould.first, one)
                if made != self._encoded(one, name, table, 0, thin):
                    raise SystemExit("the encoder writes names elsewhere, too: benchmarks/history.py has to follow")
        mould.members.append(one)

    def _encoded(self, one: Series, timeframe: str, table: pa.Table, day: int, thin: bool) -> bytes:
        account = self._account(one, Millis(day), thin) if timeframe == "1m" else None
        return dayfiles.encode(_at(table, day), attrs.evolve(one, timeframe=timeframe), account)

    def _account(self, one: Series, day: Millis, thin: bool) -> Account:
        return Account(one, day, LETTERS[thin], compared=True, empty=WHY_EMPTY if thin else None)

    def day(self, day: Millis) -> list[SealedDay]:
        """Write the files of *day*; the day of each series, sealed."""
        return [one for mould in self._moulds for one in self._of_mould(mould, day)]

    def _of_mould(self, mould: _Mould, day: Millis) -> list[SealedDay]:
        digests: dict[Series, dict[str, str]] = {one: {} for one in mould.members}
        for name, table in mould.rows.items():
            template = _Template.of(self._encoded(mould.first, name, table, day, mould.thin))
            for one in mould.members:
                content = template.content
                if one is not mould.first:
                    content = template.with_names(mould.pages[one, name], mould.first, one)
                path = DayFile(attrs.evolve(one, timeframe=name), day).path
                (self._root / path).write_bytes(content)
                digests[one][name] = digest_of(content)
                self.files += 1
        shape = shape_of(self._higher, in_file=True)
        return [SealedDay(self._account(one, day, mould.thin), digests[one], shape) for one in mould.members]


def main() -> None:
    """Make a directory as the options say, or show that one is there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, required=True, help="where; a folder that is not there yet")
    parser.add_argument("--series", type=int, default=60, help="of three venues in turn (default: 60)")
    parser.add_argument("--days", type=int, default=365, help="of each (default: 365)")
    parser.add_argument("--thin", type=int, default=0, help="how many of the series are thin (default: none)")
    parser.add_argument("--no-aggregates", action="store_true", help="minutes only")
    options = parser.parse_args()
    began, series = time.perf_counter(), names(options.series)
    thin = series[: options.thin]
    files = make_sealed(options.dir, series, options.days, thin=thin, aggregates=not options.no_aggregates)
    print(json.dumps({"files": files, "seconds": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()
