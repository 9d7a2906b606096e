"""Followers beside the collector: they poll now and then, die, go on from a cursor, and must know in the end what is.

What they are told is judged here, minute by minute, without any of the product's own reading of the feed's rows: the
product's follower is what is judged.

======== ==================================== =================================================
all      every series, minutes and one higher each minute's story is a possible one; in the end
         timeframe                            it is the store's; candles of the higher timeframe
                                              come when the last minute under them is known
some     one series, another timeframe, some  exactly what the first one would have been told
         events
quiet    an event that never comes            the cursor moves on, and is served at the end
======== ==================================== =================================================
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import suppress
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from simulation.plan import DAY, MINUTE, Plan
from simulation.trace import Broken
from trio_candles import Change, CursorError
from trio_candles.reading.changes import Wanted
from trio_candles.reading.errors import DayFileDamaged, LedgerUnreadable, NoLedger, NoSuchDirectory
from trio_candles.reading.feed import Feed

if TYPE_CHECKING:
    from simulation.machine import Machine

__all__ = ["Followers", "judge_story"]

LENGTHS = {"3m": 3, "5m": 5, "6m": 6, "15m": 15, "30m": 30, "1h": 60}
POLLED = 0.04
"""How probable it is that a follower looks after a call of the store."""
DIES = 0.1
"""How probable it is that a follower that has looked dies: it has forgotten what came after the cursor it kept."""
SPANS = ("empty", "gap", "unfillable", "unlisted")
UNPROVEN = ("unproven", "no_close")
YOUNG = 5 * MINUTE
OLDEST = "oldest"


@attrs.define
class Follower:
    """A program that follows, and keeps its cursor with its result now and then."""

    name: str
    series: list[str]
    timeframes: list[str]
    events: list[str] | None
    over: Callable[[Feed], Any]
    told: list[Change] = attrs.field(factory=list)
    cursor: str | None = None
    kept: tuple[int, str | None] = (0, None)
    """How much had been told when the cursor was kept, and the cursor."""
    feed: Any = None

    def open(self, root: Path) -> Any:
        """The feed, from the cursor on."""
        if self.feed is None:
            wanted = Wanted.of(self.series, self.timeframes, self.events)
            self.feed = self.over(Feed(root, wanted, self.cursor or OLDEST))
        return self.feed

    def read(self, root: Path) -> None:
        """Take everything that there is."""
        feed = self.open(root)
        while feed.changed():
            self.told += feed.read()
            self.cursor = str(feed.place)

    def keep(self) -> None:
        self.kept = len(self.told), self.cursor

    def die(self) -> None:
        """Forget what came since the cursor was kept."""
        self.close()
        count, self.cursor = self.kept
        del self.told[count:]

    def close(self) -> None:
        if self.feed is not None:
            self.feed.close()
        self.feed = None


@attrs.define
class Followers:
    """The followers of one seed."""

    plan: Plan
    machine: Machine
    chance: random.Random
    over: Callable[[Feed], Any]
    """What a planted bug makes of a feed."""
    followers: list[Follower] = attrs.field(init=False)
    _written: dict[str, bytes] = attrs.field(factory=dict)

    @followers.default
    def _three(self) -> list[Follower]:
        venue = self.chance.choice(list(self.plan.symbols))
        one = f"{venue}:{self.chance.choice(self.plan.symbols[venue])}"
        higher, other = self.chance.choice(list(LENGTHS)), self.chance.choice(list(LENGTHS))
        events = self.chance.choice((["closed", "filled"], ["gap", "revised"], ["filled", "empty", "revised"]))
        timeframes = ["1m", higher] if other == higher or self.chance.random() < 0.5 else [higher]
        return [
            Follower("all", ["*:*"], ["1m", higher], None, self.over),
            Follower("some", [one], timeframes, events, self.over),
            Follower("quiet", ["*:*"], ["1m"], ["delisted"], self.over),
        ]

    def after(self, call: str) -> None:
        """The store has done *call*: perhaps somebody looks."""
        for follower in self.followers:
            if self.chance.random() < POLLED:
                self._look(follower)
                if self.chance.random() < DIES:
                    follower.die()
                    self.machine.fired["follower died"] += 1
                elif self.chance.random() < 0.5:
                    follower.keep()

    def _look(self, follower: Follower) -> None:
        self._put_files()
        try:
            follower.read(self.machine.root)
        except CursorError as error:
            if not (self.machine.has_lied or self.machine.lost or self.plan.upgraded):
                raise Broken("follow", f"{follower.name}: {error}") from error
            self.machine.fired["followers anew"] += 1
            self._begin_anew(follower)
        except (NoLedger, NoSuchDirectory, LedgerUnreadable) as error:
            # Between a loss and the start after it there is no feed.
            follower.close()
            if isinstance(error, LedgerUnreadable) and not (self.machine.lost or self.plan.upgraded):
                raise Broken("follow", f"{follower.name}: {error}") from error
        except DayFileDamaged as error:  # nobody has noticed yet
            if not self.machine.has_lied and "file" not in self.machine.lost:
                raise Broken("follow", f"{follower.name}: {error}") from error

    def _begin_anew(self, follower: Follower) -> None:
        """The journal is another one: what was told is told."""
        follower.close()
        follower.told, follower.cursor, follower.kept = [], None, (0, None)
        with suppress(LedgerUnreadable, NoLedger):
            follower.read(self.machine.root)

    def _put_files(self) -> None:
        """The day files lie in memory; who follows reads them on a real disk."""
        held = {
            name: content for name, content in self.machine.disk.contents().items()
            if content is not None and name.endswith(".parquet") and name.count("/") == 3
        }  # fmt: skip
        for name in [name for name in self._written if name not in held]:
            with suppress(FileNotFoundError):
                os.unlink(self.machine.root / name)
            del self._written[name]
        for name, content in held.items():
            if self._written.get(name) is not content:
                path = self.machine.root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                self._written[name] = content

    def close(self) -> None:
        """The machine goes down, and the followers with it."""
        for follower in self.followers:
            follower.close()

    def finish(self) -> None:
        """Everybody reads to the end; and what was told is alike for all, and again."""
        for follower in self.followers:
            self._look(follower)
        everything, some, _ = self.followers
        newest = everything.cursor
        if any(follower.cursor != newest for follower in self.followers):
            raise Broken("follow", f"the ends differ: {[(one.name, one.cursor) for one in self.followers]}")
        judge_order(everything.told)
        wanted = Wanted.of(some.series, some.timeframes, some.events)
        lengths = {one.name for one in wanted.timeframes}
        names = {one.partition(":")[2] for one in some.series}
        expected = [
            one for one in everything.told
            if one.symbol in names and one.event in (some.events or ())
            and (one.timeframe in lengths or one.event in SPANS)
        ]  # fmt: skip
        if list(map(brief, some.told)) != list(map(brief, expected)):
            raise Broken("follow", f"some were told {list(map(brief, some.told))[-5:]}, all were told otherwise")
        if everything.told:
            at = self.chance.randrange(len(everything.told))
            place = everything.told[at].cursor
            again = Follower("again", everything.series, everything.timeframes, None, self.over, cursor=place)
            again.read(self.machine.root)
            again.close()
            if list(map(brief, again.told)) != list(map(brief, everything.told[at + 1 :])):
                raise Broken("follow", f"from {everything.told[at].cursor} on it is another story")
        self.machine.fired["changes told"] += len(everything.told)
        self.close()

    @property
    def knows_the_beginning(self) -> bool:
        """Whether the feed is as old as the directory."""
        return not (self.machine.has_lied or "journal" in self.machine.lost or self.plan.upgraded)

    @property
    def told(self) -> list[Change]:
        """What the first one was told of this history."""
        return self.followers[0].told

    @property
    def higher(self) -> str:
        """The higher timeframe of the first one."""
        return self.followers[0].timeframes[1]


def brief(change: Change) -> tuple[str, str, str, str, str, int, int]:
    return (
        change.cursor, change.event, change.venue, change.symbol, change.timeframe, change.open_time_ms,
        change.close_time_ms,
    )  # fmt: skip


def judge_order(told: list[Change]) -> None:
    """Numbers only grow, and nothing is told of what has not happened or is young and merely unproven."""
    place = (0, 0)
    for change in told:
        seq, _, step = change.cursor.split("-")[1].partition(".")
        if (int(seq), int(step)) <= place:
            raise Broken("follow", f"{change.cursor} comes after {place}")
        place = int(seq), int(step)
        if change.event == "gap" and change.reason in UNPROVEN and change.at_ms < change.close_time_ms + YOUNG:
            raise Broken("follow", f"an unproven minute is a gap after {change.at_ms - change.close_time_ms} ms")


# --- one series


@attrs.define
class Story:
    """What a follower knows of one series. Where it began in the middle, minutes that it was not told of are ``?``."""

    name: str
    from_the_beginning: bool
    kinds: dict[int, str] = attrs.field(factory=dict)
    """Minute -> C, E, G, U, L."""
    filled: set[int] = attrs.field(factory=set)
    values: dict[int, Change] = attrs.field(factory=dict)
    listed: int = -DAY

    def kind(self, minute: int) -> str:
        return "L" if minute < self.listed else self.kinds.get(minute, "?")

    def complete(self, begin: int, length: int) -> bool:
        kinds = [self.kind(minute) for minute in range(begin, begin + length, MINUTE)]
        return set(kinds) <= {"C", "E", "L"} and "C" in kinds

    def hear(self, change: Change, length: int) -> Iterator[tuple[str, int]]:
        """(event, open time) of the candles of *length* that must follow *change*."""
        begin, end = change.open_time_ms, change.close_time_ms
        periods = range(begin - begin % length, end, length)
        was = {period for period in periods if self.complete(period, length)}
        letter = {"empty": "E", "gap": "G", "unfillable": "U", "unlisted": "L"}.get(change.event, "C")
        for minute in range(begin, end, MINUTE):
            self._check(change, minute)
            self.kinds[minute] = letter
            self.values[minute] = change
            if change.event == "filled":
                self.filled.add(minute)
            elif change.event != "revised":
                self.filled.discard(minute)
        if change.event == "unlisted":
            self.listed = max(self.listed, end)
        for period in periods:
            if self.complete(period, length):
                if change.event == "revised":
                    yield "revised", period
                elif period not in was:
                    filled = any(minute in self.filled for minute in range(period, period + length, MINUTE))
                    yield ("filled" if filled else "closed"), period

    def _check(self, change: Change, minute: int) -> None:
        before = self.kind(minute)
        allowed = {
            "closed": "?", "filled": "?GU", "empty": "?GU", "gap": "?CG", "unfillable": "?G", "unlisted": "?GU",
            "revised": "CE",
        }[change.event]  # fmt: skip
        if not self.from_the_beginning:
            allowed += "?"
        if before not in allowed:
            raise Broken("follow", f"{self.name}: {minute} was {before}, and is told as {change}")


def judge_story(
    followers: Followers, name: tuple[str, str], rows: Mapping[int, Any], empties: Set[int], gaps: Mapping[int, str],
    unreported: Set[int], replaced: Mapping[int, int],
) -> None:  # fmt: skip
    """What the first follower was told of the series *name* is what the store has of it in the end, and of each minute
    as many revisions as were *replaced*.
    """
    length = LENGTHS[followers.higher] * MINUTE
    story = Story(" ".join(name), followers.knows_the_beginning)
    expected: list[tuple[str, int]] = []
    higher: list[Change] = []
    for change in followers.told:
        if (change.venue, change.symbol) == name:
            if change.timeframe == "1m":
                expected += story.hear(change, length)
            else:
                higher.append(change)
    found = [(one.event, one.open_time_ms) for one in higher]
    if story.from_the_beginning and found != expected:
        at = next((n for n, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other), -1)
        raise Broken("follow", f"{story.name}: {followers.higher} is told {found[at:][:3]}, not {expected[at:][:3]}")
    revised = Counter(
        one.open_time_ms for one in followers.told
        if (one.venue, one.symbol, one.timeframe, one.event) == (*name, "1m", "revised")
    )  # fmt: skip
    if story.from_the_beginning and revised != Counter(replaced):
        raise Broken("follow", f"{story.name}: replaced was {dict(replaced)}, and told is {dict(revised)}")
    for minute in {*rows, *empties, *gaps}:
        true = "C" if minute in rows else "E" if minute in empties else "G" if gaps[minute] == "open" else "U"
        told = story.kind(minute)
        if told != true and not (told == "?" and (minute in unreported or not story.from_the_beginning)):
            raise Broken("follow", f"{story.name}: {minute} is {true}, and the last that was told is {told}")
    for minute, change in story.values.items():
        if story.kinds[minute] == "C" and change.candle is not None:
            row = rows[minute]
            values = (row["open"], row["high"], row["low"], row["close"], row["volume"])
            candle = change.candle
            if (candle.open, candle.high, candle.low, candle.close, candle.volume) != values:
                raise Broken("follow", f"{story.name}: {minute} is told as {candle}, and stored is {row}")
    order = {id(change): number for number, change in enumerate(followers.told)}
    newest = {one.open_time_ms: one for one in higher}
    for begin, one in newest.items():
        some = [rows[minute] for minute in range(begin, begin + length, MINUTE) if minute in rows]
        changed = max((order[id(change)] for change in _of(story, begin, length)), default=-1)
        if one.candle is not None and changed < order[id(one)] and (
            one.candle.volume != fsum(row["volume"] for row in some) or one.candle.close != some[-1]["close"]
        ):  # fmt: skip
            raise Broken("follow", f"{story.name}: {followers.higher} of {begin} is told as {one.candle}")


def _of(story: Story, begin: int, length: int) -> list[Change]:
    return [story.values[minute] for minute in range(begin, begin + length, MINUTE) if minute in story.values]
