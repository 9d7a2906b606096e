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
MANY = {
    "coinbase": tuple(f"SIM{number:03}-USD" for number in range(4)),
    "kraken": tuple(f"SIM{number:03}/USD" for number in range(16)),
    "okx": tuple(f"SIM{number:03}-USDT" for number in range(24)),
}
"""So many that a start would exceed the venue's limits, were they not kept."""
CHOICES = [((MEDIUM,), 8), ((BUSY,), 8), ((MEDIUM, QUIET), 4), ((BUSY, MEDIUM), 1)]
"""Which symbols of a venue, and how often: a frame a second and product is what a seed's time goes into."""

SHAPES = {"usual": 9, "pause": 5, "outage": 1}
"""How a seed ends, and how often. ``usual``: the collector stays up when the troubles are over. ``pause``: then it is
down for some while; when it is back its candles are old enough to be compared with REST. ``outage``: REST does not
answer for a long time, and the collector stays up."""
TIMEFRAMES = ((), ("5m",), ("5m", "15m"), ("5m", "15m", "1h"), ("5m", "15m", "1h", "4h", "1d"), ("3m", "30m"))
HOLES = {"lost_rows": (0.02, 0.1, 0.4), "lost_trades": (0.002, 0.02), "revised_rows": (0.02, 0.1)}
"""What a venue's REST record may be spoiled by for good, and the shares of rows or trades."""

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

    @property
    def earliest(self) -> int:
        """How far back the first life looks."""
        return self.epoch + self.skew - self.lookback_minutes * MINUTE

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
        return (
            f"market {self.market} from {self.epoch}: {symbols}; lookback {self.lookback_minutes} min, flush every"
            f" {self.flush_seconds:.0f} s, clock {self.skew:+d} ms, timeframes {derived}{holes}{listed},"
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
    lookback = chance.choice((0, 10) if many else (0, 0, 10, 60, 150))
    return Plan(
        seed=seed,
        market=chance.randrange(MARKETS),
        epoch=epoch,
        symbols=symbols,
        lookback_minutes=lookback,
        flush_seconds=chance.choice((10.0, 30.0, 60.0)),
        skew=chance.choice((0, 0, chance.randrange(-1500, 1500))),
        troubled_seconds=120.0 if shape == "outage" else chance.choice((180.0, 240.0, 300.0, 420.0)),
        quiet_seconds=310.0,
        rates={kind: 0.0 if calm else mean * chance.choice(SWARM) for kind, mean in kinds},
        shape=shape,
        shape_seconds=60 * {"usual": 0.0, "pause": chance.uniform(11, 45), "outage": chance.uniform(20, 60)}[shape],
        timeframes=(chance.choice(TIMEFRAMES), chance.choice(TIMEFRAMES))
        if chance.random() < 0.2
        else (_usual(chance),),
        listed=_listed(chance, symbols, epoch, lookback),
        holes={kind: chance.choice(shares) for kind, shares in HOLES.items() if chance.random() < 0.15},
    )


def _symbols(chance: random.Random, shape: str) -> dict[str, tuple[str, ...]]:
    """Which venues and which of their symbols; few and quiet ones where much time is to pass."""
    if shape == "outage":
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
    """One seed in four that looks back far enough looks back beyond a listing."""
    if lookback < 10 or chance.random() > 0.25:
        return {}
    venue = chance.choice(sorted(symbols))
    return {(venue, chance.choice(symbols[venue])): epoch - chance.randrange(5 * MINUTE, lookback * MINUTE)}


def config_of(plan: Plan, root: Path, life: int) -> Config:
    """The configuration of the *life*-th life of the collector; its venues are the simulated ones."""
    timeframes = plan.timeframes_of(life)
    return Config(
        data_dir=root,
        log_dir=root / "logs",
        venues=tuple(
            VenueConfig(venue, True, some, f"ws://{venue}.simulated{PATHS[venue]}", f"http://{venue}.simulated")
            for venue, some in plan.symbols.items()
        ),
        gap_detection=GapDetection(enabled=True, lookback_days=plan.lookback_minutes / 1440),
        aggregation=Aggregation(enabled=bool(timeframes), base_timeframe="1m", timeframes=timeframes or ("5m",)),
        storage=Storage(flush_interval_seconds=plan.flush_seconds),
        status=Status(interval_seconds=30),
        shutdown=Shutdown(timeout_seconds=10),
    )


PATHS = {"coinbase": "/", "kraken": "/v2", "okx": "/ws/v5/business"}
