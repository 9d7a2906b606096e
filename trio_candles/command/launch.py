"""What a run is to do, decided before anything is started: options, configuration and what the directory remembers.

The collector, and preflight in its place, decide by the same rules.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from trio_candles.candles.model import DAY, utc_text
from trio_candles.candles.times import LATEST
from trio_candles.clock import WallTime
from trio_candles.config.kinds import is_loopback_url
from trio_candles.config.load import Config, load_config
from trio_candles.network.trust import BadAuthorities, trusted
from trio_candles.store.identity import remembered_meta
from trio_candles.store.lock import is_locked
from trio_candles.store.schema import LOCK, QUARANTINE, TMP

__all__ = ["Plan", "UsageError", "plan", "world"]

DEFAULT_SEED = 0


class UsageError(Exception):
    """The options do not go together, or not with the directory; the text is for stderr, exit code 2."""


@attrs.frozen
class Plan:
    """What this run is to do, decided before anything is started."""

    config: Config
    time: WallTime
    simulate: bool
    seed: int | None
    """Of the simulated market; ``None`` for a real one."""
    duration: float | None
    """Service seconds until the run ends by itself; ``None``: never."""
    accelerated: bool
    """Whether the clock's speed is other than 1."""
    shifted: bool = False
    """Whether the clock's pivot was asked for."""

    @property
    def of_wall(self) -> bool:
        """Whether the service's clock is the wall's, and the venues are what they are for everybody."""
        return not (self.simulate or self.accelerated or self.shifted)

    @property
    def kind(self) -> str:
        """The kind of candles, ``simulated`` or ``real``, as the data directory remembers it."""
        return "simulated" if self.simulate else "real"


def plan(options: argparse.Namespace, *, looking: bool = False) -> Plan:
    """Options and configuration as one; ConfigError or :class:`UsageError` for what does not go together.

    *looking* is for a tool that starts nothing. Then a directory of the other kind is no error, but nothing that the
    directory remembers is used; and while a collector holds the directory, the collector's clock is used.
    """
    data_dir = options.data_dir
    if data_dir is None and options.simulate:
        data_dir = Path("data-simulated")
    config = load_config(options.config, data_dir=data_dir)
    if options.seed is not None and not options.simulate:
        raise UsageError("--seed goes with --simulate only")
    meta = remembered_meta(config.data_dir)
    kind = "simulated" if options.simulate else "real"
    if meta.get("kind", kind) != kind:
        if not looking:
            raise UsageError(f"{config.data_dir} holds {meta['kind']} candles; this run would write {kind} ones")
        meta = {}
    time = _running_clock(options, config, meta) if looking else None
    time = time or _clock(options, meta)
    accelerated = time.speed != 1.0
    if accelerated:
        _refuse_another_age(time, config)
    asked = options.speed is not None or options.pivot is not None
    if (accelerated or asked) and not options.simulate:
        _refuse_real_endpoints(config, "" if asked else f"{config.data_dir} goes on with its accelerated clock; ")
    _refuse_logs_among_candles(config)
    if not options.simulate:
        _refuse_unreadable_authorities()
    seed = _seed(options.seed, meta) if options.simulate else None
    return Plan(config, time, options.simulate, seed, options.duration, accelerated, options.pivot is not None)


def _refuse_unreadable_authorities() -> None:
    try:
        trusted()
    except BadAuthorities as error:
        raise UsageError(str(error)) from error


def _clock(options: argparse.Namespace, meta: dict[str, str]) -> WallTime:
    """The clock asked for; without a pivot, the directory's own clock continued."""
    remembers = "latest_ms" in meta and (meta.get("kind") == "simulated" or float(meta.get("speed", "1")) != 1.0)
    if not remembers:
        return WallTime.starting(options.speed or 1.0, options.pivot)
    latest, speed = int(meta["latest_ms"]), float(meta["speed"])
    if options.pivot is None:
        time = WallTime.continuing(speed, float(meta["pivot"]), latest, options.speed or speed)
    else:
        time = WallTime.starting(options.speed or speed, options.pivot)
    if time.now() < latest:
        raise UsageError(
            f"the clock asked for is {(latest - time.now()) / 1000:.0f} s before the directory's latest time;"
            " leave out --speed and --pivot to continue it"
        )
    return time


def _running_clock(options: argparse.Namespace, config: Config, meta: dict[str, str]) -> WallTime | None:
    """The clock of the collector that holds the directory, unless another was asked for."""
    try:
        if options.speed is None and options.pivot is None and is_locked(config.data_dir / LOCK):
            return WallTime(float(meta["speed"]), float(meta["pivot"]))
    except (OSError, LookupError, ValueError):
        return None
    return None


def _seed(asked: int | None, meta: dict[str, str]) -> int:
    remembered = meta.get("seed")
    if remembered is None:
        return DEFAULT_SEED if asked is None else asked
    if asked is not None and asked != int(remembered):
        raise UsageError(f"the directory's market has seed {remembered}, not {asked}")
    return int(remembered)


def _refuse_another_age(time: WallTime, config: Config) -> None:
    """Refuse a clock so early or late that the ledger, or the lookback, would need a time before 1970 or after 2300."""
    earliest, now = DAY + round(config.gap_detection.lookback_days * DAY), time.now()
    if not earliest <= now < LATEST - DAY:
        raise UsageError(
            f"--speed {time.speed:g} and --pivot {time.pivot:.0f} make it {utc_text(now)}; expected a time from"
            f" {utc_text(earliest)}, what is looked back to lying after 1970, to {utc_text(LATEST - DAY)}"
        )


def _refuse_logs_among_candles(config: Config) -> None:
    """Refuse a log directory in those folders of the data directory that are for candles, or are cleared at a start."""
    data_dir, log_dir = config.data_dir.resolve(), config.log_dir.resolve()
    for name in (TMP, QUARANTINE, *(venue.name for venue in config.venues)):
        if log_dir.is_relative_to(data_dir / name):
            raise UsageError(f"log_dir {config.log_dir} lies in {data_dir / name}, where only candles belong")


def _refuse_real_endpoints(config: Config, because: str) -> None:
    for venue in config.enabled_venues:
        urls = (venue.websocket_url, venue.rest_url)
        if not all(url is not None and is_loopback_url(url) for url in urls):
            raise UsageError(
                f"{because}--speed and --pivot go with --simulate, or with loopback endpoints only;"
                f" {venue.name} has others"
            )


@asynccontextmanager
async def world(planned: Plan) -> AsyncIterator[Config]:
    """The configuration to collect by: as it is, or pointed at exchanges simulated for the block."""
    if not planned.simulate:
        yield planned.config
        return
    from trio_candles.simulator import Market, open_exchanges_on_loopback

    assert planned.seed is not None
    names = tuple(venue.name for venue in planned.config.enabled_venues)
    async with open_exchanges_on_loopback(Market(planned.seed), planned.time.now, names) as world:
        venues = tuple(
            attrs.evolve(
                venue,
                websocket_url=world.endpoints[venue.name].websocket_url,
                rest_url=world.endpoints[venue.name].rest_url,
            )
            if venue.enabled
            else venue
            for venue in planned.config.venues
        )
        yield attrs.evolve(planned.config, venues=venues)
