"""What must hold at the end of a seed, read from the files with nothing of the product's.

Parquet with pyarrow, the ledger with SQL of its own, the truth from the market.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import attrs

from simulation.folds import judge_aggregates
from simulation.followers import Followers, judge_story
from simulation.plan import Plan
from simulation.record import Record
from simulation.revisions import judge_revisions
from simulation.sealed import Day, days_of, judge_days, path_of
from simulation.stored import MINUTE, Row, open_ledger, rows_of, spans_of
from simulation.trace import Broken
from simulation.views import judge_audit, judge_reader
from trio_candles.simulator import Market, SimulatedExchange

__all__ = ["Case", "End", "judge"]

FILLED_WITHIN = 300_000
"""Ms in which a minute is filled once nothing is in the way."""
LONGEST_WAIT = 630_000
"""Ms, at most, between two questions about a minute that were in vain, by a clock that may be half a minute off."""
A_ROUND = 480_000
"""Ms in which all pieces of a long gap are asked about: each further piece of four or more waits for two minutes."""
SETTLED_AFTER = 14 * MINUTE
"""Ms from a minute's opening until REST has had the last word on it: it is asked after ten minutes, and twice."""
OLD, APART = 60 * MINUTE, 10 * MINUTE
"""Only of minutes that old is an absence believed, and only if seen twice, that far apart."""
FEW = 3
"""Of a venue's symbols: with more, comparing them all may take longer than there was time for."""


@attrs.define
class End:
    """What there was at the end, for whoever counts."""

    minutes: int = 0
    candles: int = 0
    empty: int = 0
    gaps: int = 0
    unfillable: int = 0
    aggregates: int = 0
    lives: int = 0


@attrs.frozen
class Case:
    """All that is known of a seed that has ended."""

    plan: Plan
    record: Record
    market: Market
    root: Path
    now: int
    healed_at: int
    """When there was no trouble any more, and the collector was (about to be) up."""
    earliest: Mapping[tuple[str, str], int]
    """The first minute that a life expected, by venue and symbol; nothing where no life got so far."""
    exchanges: Mapping[str, SimulatedExchange]
    revised: Set[tuple[str, int]]
    """(symbol, minute) of which OKX said two different things live."""
    acknowledged: Mapping[tuple[str, str, int], tuple[float, ...]]
    has_lied: bool
    """A disk has, or the ledger or a day file was lost: what these remembered may be lost."""
    timeframes: Sequence[str]
    followers: Followers

    def is_settled(self, venue: str, minute: int) -> bool:
        """Whether a live candle of *minute* must have been compared with REST."""
        return minute + SETTLED_AFTER <= self.now and len(self.plan.symbols[venue]) <= FEW


def judge(case: Case, end: End, fired: Counter[str]) -> None:
    """Raise :class:`Broken` for the first invariant that does not hold, else fill in *end*."""
    for venue, exchange in case.exchanges.items():
        if exchange.violations:
            raise Broken("limits", f"{venue}'s were exceeded: {dict(exchange.violations)}")
    leftovers = [path.name for path in (case.root / ".tmp").iterdir()]
    if leftovers:
        raise Broken("leftovers", f"in .tmp: {leftovers}")
    with open_ledger(case.root) as database:
        waiting = database.execute("SELECT count(*) FROM candle").fetchone()[0]
        if waiting:
            raise Broken("flush", f"{waiting} rows still wait in the journal after a clean stop")
        files = {
            path.relative_to(case.root).as_posix(): path.read_bytes() for path in case.root.glob("*/*/*/*.parquet")
        }
        days = judge_days(database, files, set())
        missing = [one.name for one in days.values() if {*one.digests} - _files_of(one, files)]
        if missing:
            raise Broken("sealed", f"files of sealed days are missing: {missing}")
        fired["days sealed at the end"] += len(days)
        for venue, symbols in case.plan.symbols.items():
            for symbol in symbols:
                _Series(case, database, venue, symbol).judge(end)
        _judge_samples(case, database)
        fired.update(database_counts(database))
    judge_audit(case.root, case.now, end.candles, end.empty, end.gaps, end.unfillable, end.aggregates)


def _files_of(day: Day, files: Mapping[str, bytes]) -> set[str]:
    """The timeframes of which there is a file of *day*."""
    return {name for name in day.digests if path_of(*day.key, name) in files}


def _judge_samples(case: Case, database: sqlite3.Connection) -> None:
    """Rows differ from trades only where the record was made so."""
    for venue, count in database.execute("SELECT venue, count FROM confirmation WHERE outcome = 'sampled_differed'"):
        if "revised_rows" not in case.plan.holes:
            raise Broken("samples", f"{venue}: {count} rows are said to differ from trades, and none does")


def database_counts(database: sqlite3.Connection) -> dict[str, int]:
    """What has become of revisions, of samples, of gaps and of listings, for whoever counts."""
    outcomes = database.execute("SELECT 'revision ' || outcome, count(*) FROM revision GROUP BY outcome").fetchall()
    samples = database.execute("SELECT outcome, count FROM confirmation WHERE outcome LIKE '%sampled%'").fetchall()
    listings = database.execute("SELECT 'listing', count(*) FROM listing").fetchall()
    given_up = database.execute(
        "SELECT 'unfillable', coalesce(sum(until_ms - since_ms), 0) / 60000 FROM gap WHERE state = 'unfillable'"
    ).fetchall()
    return dict([*outcomes, *samples, *listings, *given_up])


@attrs.define
class _Series:
    case: Case
    database: sqlite3.Connection
    venue: str
    symbol: str
    rows: dict[int, Row] = attrs.field(init=False)
    gaps: dict[int, str] = attrs.field(init=False)
    empties: dict[int, str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.rows = rows_of(self.case.root, self.venue, self.symbol, "1m", self.case.now)
        days = [one for key, one in days_of(self.database).items() if key[:2] == (self.venue, self.symbol)]
        self.gaps = spans_of(self.database, "gap", self.venue, self.symbol, "state", days)
        self.empties = spans_of(self.database, "empty", self.venue, self.symbol, "evidence", days)

    @property
    def name(self) -> str:
        return f"{self.venue} {self.symbol}"

    def judge(self, end: End) -> None:
        """Every minute is one thing, and it is true."""
        case = self.case
        id_, first, mark = self.database.execute(
            "SELECT id, first_ms, mark_ms FROM series WHERE venue = ? AND symbol = ? AND timeframe = '1m'",
            (self.venue, self.symbol),
        ).fetchone()
        known_from = self._judge_beginning(id_, first)
        strange = [minute for minute in {*self.rows, *self.gaps, *self.empties} if not first <= minute < mark]
        if strange:
            raise Broken("account", f"{self.name}: minutes outside [{first}, {mark}): {sorted(strange)[:5]}")
        for minute in range(first, mark, MINUTE):
            kinds = (minute in self.rows) + (minute in self.gaps) + (minute in self.empties)
            if kinds != 1:
                raise Broken("account", f"{self.name}: {minute} is {kinds} things")
            self._judge_minute(minute)
        self._judge_given_up(id_)
        told = judge_revisions(
            self.database, id_, self.venue, self.symbol, self.rows, case.record, case.revised,
            case.acknowledged, case.has_lied,
        )  # fmt: skip
        for minute, row in self.rows.items():
            differs = row["volume"] and case.record.revised_row(self.venue, self.symbol, minute)
            differs = differs and row["source"] == "websocket" and not self._is_outvoted()
            if differs and minute not in told and case.is_settled(self.venue, minute) and not case.has_lied:
                raise Broken(
                    "revision", f"{self.name}: REST says something else of {minute}, and there is no word of it"
                )
        unreported = self.database.execute(
            "SELECT max(since_ms, reported_ms), until_ms FROM gap WHERE series_id = ? AND reported_ms < until_ms",
            (id_,),
        )
        replaced = self.database.execute(
            "SELECT open_ms, count(*) FROM revision WHERE series_id = ? AND outcome = 'replaced' GROUP BY 1", (id_,)
        )
        judge_story(
            case.followers, (self.venue, self.symbol), self.rows, self.empties.keys(), self.gaps,
            {minute for low, high in unreported for minute in range(low, high, MINUTE)},
            dict(replaced),
        )  # fmt: skip
        bounds = (known_from, first, mark)
        end.aggregates += judge_aggregates(
            case.root, self.venue, self.symbol, case.timeframes, self.rows, self.gaps.keys(), bounds, case.now
        )
        if self.symbol in case.plan.symbols[self.venue][:FEW] and first < mark:
            judge_reader(case.root, self.venue, self.symbol, self.rows, self.empties, self.gaps, bounds)
        end.minutes += (mark - first) // MINUTE
        end.candles += len(self.rows)
        # The audit counts what has happened; a clock that was ahead for a moment may have left more in the ledger.
        happened = [state for minute, state in self.gaps.items() if minute + MINUTE <= case.now]
        end.empty += sum(minute + MINUTE <= case.now for minute in self.empties)
        given_up = happened.count("unfillable")
        end.gaps += len(happened) - given_up
        end.unfillable += given_up

    def _judge_beginning(self, id_: int, first: int) -> int:
        """The series begins as early as it should, and no earlier than its market; since when all is known of it."""
        case = self.case
        found = self.database.execute("SELECT since_ms FROM listing WHERE series_id = ?", (id_,)).fetchone()
        begin = case.market.instrument(self.venue, self.symbol).listed_at_ms // MINUTE * MINUTE
        first_trade = case.market.trade(self.venue, self.symbol, 1).time_us // 60_000_000 * MINUTE
        traded = case.market.first_id_from(self.venue, self.symbol, (case.now - FILLED_WITHIN) * 1000) > 1
        if first < begin and (traded or self.venue == "okx"):  # the others say it by the first trade
            raise Broken("listing", f"{self.name}: expected from {first} on, and listed at {begin}")
        if found is not None and not begin <= found[0] <= first_trade:
            raise Broken("listing", f"{self.name}: is said to have begun at {found[0]}, and did at {begin}")
        if self.venue != "okx":  # the others' markets begin with the first trade
            begin = first_trade
        earliest = case.earliest.get((self.venue, self.symbol), first)
        if not case.has_lied and first > max(earliest, begin):
            raise Broken("account", f"{self.name}: expected from {first} on only; it should be from {earliest}")
        return 0 if found is not None and found[0] == first else first

    def _judge_minute(self, minute: int) -> None:
        case, true = self.case, self.case.market.candle(self.venue, self.symbol, minute)
        if minute in self.rows:
            self._judge_candle(minute, self.rows[minute])
        elif minute in self.empties:
            if true is not None:
                raise Broken("truth", f"{self.name}: {minute} is called empty ({self.empties[minute]}), and had {true}")
            if minute + MINUTE > case.now:
                raise Broken("future", f"{self.name}: {minute} is called empty, and is not over")
        else:
            hidden = case.record.hides(case.market, self.venue, self.symbol, minute, case.now)
            if self.gaps[minute] == "unfillable" and not hidden:
                raise Broken(
                    "given up", f"{self.name}: {minute} is unfillable, and the venue has it: {self._gap(minute)}"
                )
            excused = hidden or case.record.contradicts_itself(self.venue, self.symbol, minute) or self._is_outvoted()
            excused = excused or self._is_unprovable(minute) or self._waits(minute)
            if minute + MINUTE <= case.healed_at and not excused:
                after = (case.now - case.healed_at) / 1000
                raise Broken(
                    "filled",
                    f"{self.name}: {minute} is a gap {after:.0f} s after the last trouble: {self._gap(minute)}",
                )

    def _gap(self, minute: int) -> object:
        return self.database.execute(
            "SELECT state, reason, detail, attempts, last_error FROM gap JOIN series ON series.id = series_id"
            " WHERE venue = ? AND symbol = ? AND since_ms <= ? AND until_ms > ?",
            (self.venue, self.symbol, minute, minute),
        ).fetchone()

    def _is_unprovable(self, minute: int) -> bool:
        """Whether the record cannot yet be asked: without a row a minute is proven by the trade that follows it."""
        case, first_id_from = self.case, self.case.market.first_id_from
        traded = first_id_from(self.venue, self.symbol, minute * 1000) > 1
        if self.venue != "kraken":  # the others say what is newest: one by rows of every minute, one by heartbeats
            return False
        omitted = case.record.omits_empty_rows(self.venue)
        empty = case.market.candle(self.venue, self.symbol, minute) is None
        omitted = (omitted and empty) or (empty and self._follows_a_lost_row(minute))
        if traded and not omitted and not case.record.lost_row(self.venue, self.symbol, minute):
            return False
        after, lately = (minute + MINUTE + 1000) * 1000, (case.now - FILLED_WITHIN) * 1000
        return first_id_from(self.venue, self.symbol, after) >= first_id_from(self.venue, self.symbol, lately)

    def _waits(self, minute: int) -> bool:
        """Whether *minute* was asked about in vain during the troubles, so often that it is not due again yet. The last
        piece of a long gap may be asked about after them: only then do the others of that round begin to wait.
        """
        found = self.database.execute(
            "SELECT not_before_ms FROM gap JOIN series ON series.id = series_id"
            " WHERE venue = ? AND symbol = ? AND since_ms <= ? AND until_ms > ?",
            (self.venue, self.symbol, minute, minute),
        ).fetchone()
        return found is not None and bool(self.case.now < found[0] <= self.case.healed_at + LONGEST_WAIT + A_ROUND)

    def _follows_a_lost_row(self, minute: int) -> bool:
        """Whether a row that says nothing, or something wrong, lies between *minute* and the last row with trades
        before: a row without trades is held against the price before it.
        """
        for before in range(minute - MINUTE, minute - 120 * MINUTE, -MINUTE):
            if self.case.record.lost_row(self.venue, self.symbol, before):
                return True
            if self.case.market.candle(self.venue, self.symbol, before) is not None:
                return False
        return False

    def _is_outvoted(self) -> bool:
        """Whether most of what was stored when the troubles ended is not what the record says, of a venue whose answers
        do not name their market: they are not believed before as many candles that agree are stored.
        """
        if self.venue == "kraken":
            return False
        record, healed_at = self.case.record, self.case.healed_at
        stored = [minute for minute in self.rows if self.rows[minute]["source"] == "websocket" and minute < healed_at]
        known = [minute for minute in stored if not record.lost_row(self.venue, self.symbol, minute)]
        return 2 * sum(record.revised_row(self.venue, self.symbol, minute) for minute in known) > len(known)

    def _judge_candle(self, minute: int, row: Row) -> None:
        true = self.case.market.candle(self.venue, self.symbol, minute)
        found = tuple(row[key] for key in ("open", "high", "low", "close", "volume"))
        if true is None:
            said = (0.0, 10.0) if (self.symbol, minute) in self.case.revised else (0.0,)  # "0", and then "10"
            flat = row["volume"] in said and row["open"] == row["high"] == row["low"] == row["close"]
            if self.venue != "okx" or not flat:
                raise Broken("truth", f"{self.name}: {minute} is stored as {found}, and nothing was traded")
            return
        wanted = tuple(float(x) for x in (true.open, true.high, true.low, true.close, true.volume))
        volumes = self._volumes(minute, row["source"] == "rest")
        right = found[:4] == wanted[:4] and any(math.isclose(found[4], volume, rel_tol=1e-9) for volume in volumes)
        if not right or row["trades_count"] not in (None, true.trades_count):
            raise Broken(
                "truth", f"{self.name}: {minute} is stored as {found} ({row['source']}), and was {wanted}: {volumes}"
            )

    def _volumes(self, minute: int, from_rest: bool) -> list[float]:
        """What may be stored as the volume of *minute*: what its venue says, where that is not the same everywhere.

        Once a live candle was compared with REST, it is REST's.
        """
        case, venue = self.case, self.venue
        true = case.market.candle(venue, self.symbol, minute)
        assert true is not None
        traded = float(true.volume)
        recorded = 2 * traded if case.record.revised_row(venue, self.symbol, minute) else traded
        if venue == "coinbase" or (venue == "kraken" and from_rest):
            return [traded, recorded] if from_rest else [traded]  # trades count as much as rows
        compared = case.is_settled(venue, minute) and not case.record.lost_row(venue, self.symbol, minute)
        if from_rest or (compared and not self._is_outvoted()):
            # Kraken's trades are its REST's word as well: a page of them may have come after the row, and settled it.
            return [recorded, traded] if venue == "kraken" and self._was_kept(minute) else [recorded]
        heard = [float(f"1{true.volume:f}")] if (self.symbol, minute) in case.revised else []
        return [traded, *heard]

    def _was_kept(self, minute: int) -> bool:
        """Whether what was stored of *minute* was contradicted, and confirmed after that."""
        kept = self.database.execute(
            "SELECT count(*) FROM revision JOIN series ON series.id = series_id"
            " WHERE venue = ? AND symbol = ? AND open_ms = ? AND outcome = 'kept'",
            (self.venue, self.symbol, minute),
        ).fetchone()
        return bool(kept[0])

    def _judge_given_up(self, id_: int) -> None:
        """What is unfillable was seen to be absent twice, well apart, each time long after it was over."""
        events = self.database.execute(
            "SELECT event, at_ms, since_ms, until_ms FROM gap_event WHERE series_id = ? ORDER BY rowid", (id_,)
        ).fetchall()
        seen: dict[int, list[int]] = {}
        for event, at, since, until in events:
            for minute in range(since, until, MINUTE):
                if event == "absent" and at >= minute + MINUTE + OLD:
                    seen.setdefault(minute, []).append(at)
                if event == "unfillable" and not self.case.has_lied:
                    before = [time for time in seen.get(minute, []) if time <= at - APART]
                    if not before or at < minute + MINUTE + OLD:
                        raise Broken("given up", f"{self.name}: {minute} at {at}, seen absent at {seen.get(minute)}")
