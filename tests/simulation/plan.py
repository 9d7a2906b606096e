"""What a seed decides before anything runs."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import attrs

from trio_candles.config import Aggregation, Config, GapDetection, Shutdown, Status, Storage, VenueConfig
from trio_candles.model import DAY, MINUTE, Millis

__all__ = ["Plan", "config_of", "plan_of"]

MIDNIGHT = 1_768_003_200_000
"""2026-01-10 00:00:00 UTC; every seed begins on this day, so that markets are computed once for many seeds."""
MARKETS = 4
"""Different markets; by the time of day they give thousands of different ten minutes each."""

BUSY = {"coinbase": "BTC-USD", "kraken": "BTC/USD", "okx": "BTC-USDT"}
MEDIUM = {"coinbase": "ETH-USD", "kraken": "ETH/USD", "okx": "ETH-USDT"}
QUIET = {"coinbase": "SOL-USD", "kraken": "SOL/USD", "okx": "SOL-USDT"}
MANY = {
    "coinbase": tuple(f"SIM{number:03}-USD" for number in range(8)),
    "kraken": tuple(f"SIM{number:03}/USD" for number in range(20)),
    "okx": tuple(f"SIM{number:03}-USDT" for number in range(30)),
}
"""So many that a start would exceed the venue's limits, were they not kept."""
CHOICES = [((MEDIUM,), 8), ((BUSY,), 8), ((MEDIUM, QUIET), 6), ((BUSY, MEDIUM), 2), ((), 1)]
"""Which symbols of a venue, and how often: a frame a second and product is what a seed's time goes into."""

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

    @property
    def seconds(self) -> float:
        """How long it takes if the collector is up when the troubles end."""
        return self.troubled_seconds + self.quiet_seconds

    def chance(self, purpose: str) -> random.Random:
        """A source of chance that nobody else draws from."""
        return random.Random(f"{self.seed}/{purpose}")

    def __str__(self) -> str:
        symbols = "; ".join(f"{venue} {', '.join(some)}" for venue, some in self.symbols.items())
        rates = ", ".join(f"{kind} {rate:.2f}" for kind, rate in sorted(self.rates.items()) if rate)
        return (
            f"market {self.market} from {self.epoch}: {symbols}; lookback {self.lookback_minutes} min, flush every"
            f" {self.flush_seconds:.0f} s, clock {self.skew:+d} ms, {self.troubled_seconds:.0f} s of trouble and"
            f" {self.quiet_seconds:.0f} s without; troubles per minute: {rates}"
        )


def plan_of(seed: int, kinds: Iterable[tuple[str, float]]) -> Plan:
    """The plan of *seed*; *kinds* are all kinds of trouble with their mean rates per minute."""
    chance = random.Random(f"{seed}/plan")
    venues = chance.choices(
        (tuple(BUSY), tuple(chance.sample(tuple(BUSY), 2)), (chance.choice(tuple(BUSY)),)), (6, 2, 2)
    )
    symbols = {}
    for venue in sorted(venues[0]):
        (some,) = chance.choices([choice for choice, _ in CHOICES], [weight for _, weight in CHOICES])
        symbols[venue] = tuple(kind[venue] for kind in some) or MANY[venue]
    offset = chance.choice((chance.randrange(30, 1400) * MINUTE, DAY - chance.randrange(60, 600) * 1000))
    calm = chance.random() < 0.05
    return Plan(
        seed=seed,
        market=chance.randrange(MARKETS),
        epoch=Millis(MIDNIGHT + offset + chance.randrange(MINUTE)),
        symbols=symbols,
        lookback_minutes=chance.choice((0, 0, 10, 60)),
        flush_seconds=chance.choice((10.0, 30.0, 60.0)),
        skew=chance.choice((0, 0, chance.randrange(-1500, 1500))),
        troubled_seconds=chance.choice((240.0, 300.0, 300.0, 600.0)),
        quiet_seconds=310.0,
        rates={kind: 0.0 if calm else mean * chance.choice(SWARM) for kind, mean in kinds},
    )


def config_of(plan: Plan, root: Path) -> Config:
    """The configuration that the collector of *plan* runs with; its venues are the simulated ones."""
    return Config(
        data_dir=root,
        log_dir=root / "logs",
        venues=tuple(
            VenueConfig(venue, True, some, f"ws://{venue}.simulated{PATHS[venue]}", f"http://{venue}.simulated")
            for venue, some in plan.symbols.items()
        ),
        gap_detection=GapDetection(enabled=True, lookback_days=plan.lookback_minutes / 1440),
        aggregation=Aggregation(enabled=True, base_timeframe="1m", timeframes=("5m", "15m")),
        storage=Storage(flush_interval_seconds=plan.flush_seconds),
        status=Status(interval_seconds=30),
        shutdown=Shutdown(timeout_seconds=10),
    )


PATHS = {"coinbase": "/", "kraken": "/v2", "okx": "/ws/v5/business"}
