"""What a seed decides before anything runs."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import attrs

from trio_candles.candles.model import DAY, MINUTE, Millis
from trio_candles.config.load import Aggregation, Config, GapDetection, Shutdown, Status, Storage, VenueConfig

__all__ = ["Plan", "config_of", "plan_of"]

MIDNIGHT = 1_768_003_200_000
"""2026-01-10 00:00:00 UTC; every seed begins on this day, so that markets are computed once for many seeds."""
MARKETS = 4
"""Different markets; by the time of day they give thousands of different ten minutes each."""

BUSY = {"coinbase": "BTC-USD", "kraken": "BTC/USD", "okx": "BTC-USDT"}
MEDIUM = {"coinbase": "ETH-USD", "kraken": "ETH/USD", "okx": "ETH-USDT"}
QUIET = {"coinbase": "SOL-USD", "kraken": "SOL/USD", "okx": "SOL-USDT"}
THIN = {"coinbase": "SIM900-USD", "kraken": "SIM900/USD", "okx": "SIM900-USDT"}
"""A trade every ten to ninety minutes."""
MANY = {
    "coinbase": tuple(f"SIM{number:03}-USD" for number in range(4)),
    "kraken": tuple(f"SIM{number:03}/USD" for number in range(16)),
    "okx": tuple(f"SIM{number:03}-USDT" for number in range(24)),
}
"""So many that a start would exceed the venue's limits, were they not kept."""
CHOICES = [((MEDIUM,), 8), ((BUSY,), 6), ((MEDIUM, QUIET), 4), ((MEDIUM, THIN), 4), ((THIN,), 2), ((BUSY, MEDIUM), 1)]
"""Which symbols of a venue, and how often: a frame a second and product is what a seed's time goes into."""

SHAPES = {"usual": 17, "pause": 10, "outage": 3, "told to wait": 2}
"""How a seed ends, and how often. ``usual``: the collector stays up when the troubles are over. ``pause``: then it is
down for some while; when it is back its candles are old enough to be compared with REST. ``outage``: REST does not
answer for a long time, and the collector stays up. ``told to wait``: REST says once that it wants to be left alone for
days, of which an hour is granted."""
LONG = ("outage", "told to wait")
PAST = {"days": 0.12, "midnight": 0.10}
"""Shapes beside those, and their shares of all seeds, in which days are sealed; of thin markets, for time is long.
``days``: the look-back is two days, so that a whole past day is collected and sealed while there is trouble.
``midnight``: ninety minutes from shortly before midnight on, so that the day that ends is sealed."""
TWO_DAYS = 2 * 1440
SEALING = {
    "cut sealing": 0.04, "cut sealed": 0.03, "cut opened": 0.03, "cut finishing": 0.03, "cut scrubbing": 0.015,
    "journal lost": 0.015, "journal broken": 0.01, "row damaged": 0.015, "file lost": 0.015, "file damaged": 0.015,
}  # fmt: skip
"""Kinds of trouble that come in these seeds only, with their mean rates per minute."""
TIMEFRAMES = ((), ("5m",), ("5m", "15m"), ("5m", "15m", "1h"), ("5m", "15m", "1h", "4h", "1d"), ("3m", "30m"))
HOLES = {
    "lost_rows": (0.02, 0.1, 0.4), "lost_trades": (0.002, 0.02), "revised_rows": (0.02, 0.1),
    "odd_rows": (0.02, 0.1), "zero_rows": (0.1, 0.4), "omitted_rows": (1.0,), "extra_columns": (1.0,),
}  # fmt: skip
"""What a venue's REST record may be spoiled by for good, and the shares of rows or trades."""

SECOND, HOUR, YEAR = 1000, 3_600_000, 365 * DAY
WRONG = {
    "seconds": (5 * SECOND, 25 * SECOND, 40 * SECOND),
    "hours": (HOUR, 6 * HOUR, 23 * HOUR),
    "years": (YEAR, 10 * YEAR, 1970),
}
"""By how many ms the clock may be wrong at the first start, ahead or behind; 1970 is a machine that remembers no
time."""

SWARM = (0.0, 0.3, 1.0, 3.0)
"""What each kind's rate is multiplied by, drawn for each seed: mixtures find more than one mean mixture does."""


@attrs.frozen
class Plan:
    """A seed, spelled out."""

    seed: int
    market: int
    epoch: Millis
    """The service's time at trio's zero."""
    symbols: dict[str, tuple[str, ...]]
    lookback_minutes: int
    flush_seconds: float
    skew: int
    """Ms by which the collector's clock is ahead of everybody else's, all the time."""
    troubled_seconds: float
    quiet_seconds: float
    rates: dict[str, float]
    """Of each kind of trouble, per minute."""
    shape: str
    """A key of :data:`SHAPES`."""
    shape_seconds: float
    """How long the pause or the outage lasts."""
    timeframes: tuple[tuple[str, ...], ...]
    """What is derived, life by life; then the last of them for good."""
    listed: dict[tuple[str, str], int]
    """When markets began, where that was not long ago."""
    holes: dict[str, float]
    """Shares of the venues' REST records, by :data:`HOLES`."""
    stuck: dict[str, tuple[str, ...]]
    """Symbols of which a venue's REST never says anything that can be understood."""
    asks_time: bool
    """Whether the collector takes its clock for the wall's, and asks REST for the time."""
    mistaken: bool
    """Whether the first thing that a venue's REST says is another market's."""
    wrong: int
    """Ms by which the collector's clock is ahead (or behind) besides, from the first start on."""
    wrong_sort: str
    """A key of :data:`WRONG`, or nothing."""
    wrong_seconds: float
    """After which somebody sets that clock right."""
    first_lookback: int | None = None
    """The first life's look-back in minutes, where that is another one."""
    absent: tuple[str, str] | None = None
    """The venue and symbol that every second life's configuration lacks, while there is trouble."""
    upgraded: bool = False
    """Whether the second life finds a directory of the format before sealed days."""

    def lookback_of(self, life: int) -> int:
        """How far the *life*-th life looks back, in minutes."""
        return self.first_lookback if life == 1 and self.first_lookback is not None else self.lookback_minutes

    def lacks(self, life: int) -> tuple[str, str] | None:
        """The venue and symbol that the *life*-th life's configuration lacks."""
        return self.absent if life % 2 == 0 else None

    def timeframes_of(self, life: int) -> tuple[str, ...]:
        """What the *life*-th life derives, counted from one."""
        return self.timeframes[min(life, len(self.timeframes)) - 1]

    def chance(self, purpose: str) -> random.Random:
        """A source of chance that nobody else draws from."""
        return random.Random(f"{self.seed}/{purpose}")

    def __str__(self) -> str:
        symbols = "; ".join(f"{venue} {', '.join(some)}" for venue, some in self.symbols.items())
        rates = ", ".join(f"{kind} {rate:.2f}" for kind, rate in sorted(self.rates.items()) if rate)
        then = "" if self.shape == "usual" else f", then {self.shape_seconds:.0f} s of {self.shape}"
        derived = "; then ".join(", ".join(some) or "none" for some in self.timeframes)
        holes = "".join(f", {kind} {share}" for kind, share in self.holes.items())
        listed = "".join(f", {symbol} listed at {time}" for (_, symbol), time in self.listed.items())
        stuck = "".join(f", {venue} silent about {', '.join(some)}" for venue, some in self.stuck.items())
        wrong = f", and {self.wrong:+d} ms in the first {self.wrong_seconds:.0f} s" if self.wrong else ""
        earlier = f" (first {self.first_lookback})" if self.first_lookback is not None else ""
        earlier += f", without {' '.join(self.absent)} in every second life" if self.absent else ""
        earlier += ", of the format before from the second life on" if self.upgraded else ""
        mistaken = ", REST asked for the time" * self.asks_time + ", REST mistaken at first" * self.mistaken
        return (
            f"market {self.market} from {self.epoch}: {symbols}; lookback {self.lookback_minutes} min{earlier},"
            f" flush every"
            f" {self.flush_seconds:.0f} s, clock {self.skew:+d} ms{wrong}, timeframes {derived}{holes}{listed}{stuck}"
            f"{mistaken},"
            f" {self.troubled_seconds:.0f} s of trouble{then} and {self.quiet_seconds:.0f} s without;"
            f" troubles per minute: {rates}"
        )


def plan_of(seed: int, kinds: Iterable[tuple[str, float]]) -> Plan:
    """The plan of *seed*; *kinds* are all kinds of trouble with their mean rates per minute."""
    chance = random.Random(f"{seed}/plan")
    (shape,) = chance.choices(list(SHAPES), list(SHAPES.values()))
    symbols = _symbols(chance, shape)
    offset = chance.choice((chance.randrange(160, 1400) * MINUTE, DAY - chance.randrange(60, 600) * 1000))
    calm = chance.random() < 0.05
    epoch = Millis(MIDNIGHT + offset + chance.randrange(MINUTE))
    many = any(len(some) > 2 for some in symbols.values())
    thin = all(set(some) <= {QUIET[venue], THIN[venue]} for venue, some in symbols.items())
    lookback = chance.choice((0, 10) if many else (0, 60, 600) if thin else (0, 0, 10, 60, 150))
    listed = _listed(chance, symbols, epoch, lookback)
    sort, wrong, wrong_seconds = _wrong(chance, epoch)
    plan = Plan(
        seed=seed,
        market=chance.randrange(MARKETS),
        epoch=epoch,
        symbols=symbols,
        lookback_minutes=lookback,
        flush_seconds=chance.choice((10.0, 30.0, 60.0)),
        skew=chance.choice((0, 0, chance.randrange(-1500, 1500))),
        troubled_seconds=120.0 if shape in LONG else chance.choice((180.0, 240.0, 300.0, 420.0)),
        quiet_seconds=310.0,
        rates={kind: 0.0 if calm else mean * chance.choice(SWARM) for kind, mean in kinds},
        shape=shape,
        shape_seconds={
            "usual": 0.0,
            "pause": 60 * chance.uniform(11, 45),
            "outage": 60 * chance.uniform(20, 60),
            "told to wait": 3660.0,
        }[shape],
        timeframes=(chance.choice(TIMEFRAMES), chance.choice(TIMEFRAMES))
        if chance.random() < 0.2
        else (_usual(chance),),
        listed=listed,
        holes={kind: chance.choice(shares) for kind, shares in HOLES.items() if chance.random() < 0.15},
        stuck=_stuck(chance, symbols, listed),
        mistaken=chance.random() < 0.2,
        asks_time=chance.random() < 0.5,
        wrong=wrong,
        wrong_sort=sort,
        wrong_seconds=wrong_seconds,
    )
    return _past(plan)


def _past(plan: Plan) -> Plan:
    """*plan*, or (in :data:`PAST`'s share of all seeds) one that seals days; drawn by itself, so that the other seeds
    stay what they are.
    """
    chance = plan.chance("past")
    drawn, shares = chance.random(), iter(PAST.items())
    shape, share = next(shares)
    if drawn >= share:
        shape, share = next(shares)[0], sum(PAST.values())
    if drawn >= share:
        return attrs.evolve(plan, rates=plan.rates | dict.fromkeys(SEALING, 0.0))
    venues = chance.sample(tuple(BUSY), chance.choice((1, 1, 2)))
    few = [(THIN,)] if len(venues) > 1 else [(THIN,), (THIN,), (QUIET,), (QUIET, THIN)]
    symbols = {venue: tuple(kind[venue] for kind in chance.choice(few)) for venue in sorted(venues)}
    all_symbols = [(venue, symbol) for venue, some in symbols.items() for symbol in some]
    epoch, lookback, earlier = plan.epoch, TWO_DAYS, None
    if shape == "midnight":
        epoch = MIDNIGHT + DAY - chance.randrange(60, 600) * 1000 + chance.randrange(1000)
        lookback = chance.choice((60, 300, 1380))
    elif chance.random() < 0.3:
        earlier = chance.choice((30, 1600))
    # Three lives in ten minutes are a lot in ninety: there is more time for less of everything.
    slower = 0.25 if shape == "days" else 0.1
    rates = {kind: rate * slower for kind, rate in plan.rates.items()}
    rates |= {kind: mean * chance.choice(SWARM) for kind, mean in SEALING.items()}
    return attrs.evolve(
        plan,
        epoch=Millis(epoch),
        symbols=symbols,
        lookback_minutes=lookback,
        first_lookback=earlier,
        troubled_seconds=1500.0 if shape == "days" else 4500.0,
        quiet_seconds=900.0,
        rates=rates,
        shape=shape,
        shape_seconds=0.0,
        listed=_listed(chance, symbols, epoch, lookback),
        holes=plan.holes if chance.random() < 0.5 else {},
        stuck={},
        absent=chance.choice(all_symbols) if len(all_symbols) > 1 and chance.random() < 0.5 else None,
        upgraded=shape == "days" and chance.random() < 0.25,
        wrong=0, wrong_sort="", wrong_seconds=0.0,
    )  # fmt: skip


def _symbols(chance: random.Random, shape: str) -> dict[str, tuple[str, ...]]:
    """Which venues and which of their symbols; few and quiet ones where much time is to pass."""
    if shape in LONG:
        venue = chance.choice(tuple(BUSY))
        return {venue: (QUIET[venue],)}
    if chance.random() < 0.04:
        venue = chance.choice(tuple(BUSY))
        return {venue: MANY[venue]}
    (venues,) = chance.choices(
        (tuple(BUSY), tuple(chance.sample(tuple(BUSY), 2)), (chance.choice(tuple(BUSY)),)), (5, 3, 2)
    )
    symbols = {}
    for venue in sorted(venues):
        (some,) = chance.choices([choice for choice, _ in CHOICES], [weight for _, weight in CHOICES])
        symbols[venue] = tuple(kind[venue] for kind in some)
    return symbols


def _usual(chance: random.Random) -> tuple[str, ...]:
    return chance.choice(TIMEFRAMES[1:]) if chance.random() < 0.9 else ()


def _listed(
    chance: random.Random, symbols: dict[str, tuple[str, ...]], epoch: int, lookback: int
) -> dict[tuple[str, str], int]:
    """One seed in four that looks back far enough looks back beyond a listing; not of a market that may not have had a
    trade since, for nothing tells that it exists.
    """
    if lookback < 10 or chance.random() > 0.25:
        return {}
    venue = chance.choice(sorted(symbols))
    symbol = chance.choice(symbols[venue])
    if symbol == THIN[venue]:
        return {}
    return {(venue, symbol): epoch - chance.randrange(5 * MINUTE, lookback * MINUTE)}


def _stuck(
    chance: random.Random, symbols: dict[str, tuple[str, ...]], listed: dict[tuple[str, str], int]
) -> dict[str, tuple[str, ...]]:
    """A third of a venue's symbols, or one, beside others that get answers; in two of five seeds that have several."""
    venues = [venue for venue, some in sorted(symbols.items()) if len(some) > 1]
    if not venues or chance.random() > 0.4:
        return {}
    venue = chance.choice(venues)
    some = chance.sample(symbols[venue], max(1, len(symbols[venue]) // 3))
    some = [symbol for symbol in some if (venue, symbol) not in listed]
    return {venue: tuple(some)} if some else {}


def _wrong(chance: random.Random, epoch: int) -> tuple[str, int, float]:
    """The sort of a clock's mistake, its size in ms, and for how many seconds it lasts; in one seed of four."""
    if chance.random() > 0.25:
        return "", 0, 0.0
    sort = chance.choice(sorted(WRONG))
    by = chance.choice(WRONG[sort])
    wrong = chance.randrange(3_600_000) - epoch if by == 1970 else chance.choice((-1, 1)) * by
    return sort, wrong, chance.choice((chance.uniform(0.0, 5.0), chance.uniform(5.0, 115.0)))


def config_of(plan: Plan, root: Path, life: int, *, healed: bool = False) -> Config:
    """The configuration of the *life*-th life of the collector; its venues are the simulated ones."""
    lacks = None if healed else plan.lacks(life)
    timeframes = plan.timeframes_of(life)
    return Config(
        data_dir=root,
        log_dir=root / "logs",
        venues=tuple(
            VenueConfig(venue, True, kept, f"ws://{venue}.simulated{PATHS[venue]}", f"http://{venue}.simulated")
            for venue, some in plan.symbols.items()
            if (kept := tuple(symbol for symbol in some if (venue, symbol) != lacks))
        ),
        gap_detection=GapDetection(enabled=True, lookback_days=plan.lookback_of(life) / 1440),
        aggregation=Aggregation(enabled=bool(timeframes), base_timeframe="1m", timeframes=timeframes or ("5m",)),
        storage=Storage(flush_interval_seconds=plan.flush_seconds),
        status=Status(interval_seconds=30),
        shutdown=Shutdown(timeout_seconds=10),
    )


PATHS = {"coinbase": "/", "kraken": "/v2", "okx": "/ws/v5/business"}
