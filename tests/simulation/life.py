"""Lives of the collector, one after another, over one disk; and what is checked while they last."""

from __future__ import annotations

import random
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
import trio
import trio.testing

from simulation.bugs import NONE, Bug
from simulation.determinism import determined
from simulation.machine import Machine, PowerLost
from simulation.oracle import End, judge, judge_the_auditor, marks
from simulation.plan import Plan, config_of, plan_of
from simulation.trace import Broken, Trace, logged
from simulation.troubles import KINDS, Site, calm, trouble_machine, trouble_venue
from trio_candles.clock import SimulatedTime
from trio_candles.config import Config
from trio_candles.model import MINUTE, Millis
from trio_candles.network import Network
from trio_candles.service import Service, open_service
from trio_candles.simulator import Market, MemoryExchanges, open_exchanges_in_memory
from trio_candles.store.store import StoreUnavailable, open_store
from trio_candles.venues import VENUES
from trio_candles.venues.histories import HISTORIES

__all__ = ["Outcome", "World", "run_seed"]

LEAVING_SECONDS = 30.0
"""A clean stop takes ten at most; a collector that is still there after that is stuck."""

SPOILED_ONE_IN = 4
"""Seeds after which something is spoiled that the audit must find."""


@attrs.define
class SkewedTime:
    """The service's clock; the venues' is the true one."""

    epoch: Millis
    ahead: int
    speed: float = 1.0

    def now(self) -> Millis:
        return Millis(self.true_now() + self.ahead)

    def true_now(self) -> Millis:
        return SimulatedTime(self.epoch).now()

    def jump(self, by: int) -> None:
        """Set the clock *by* ms ahead."""
        self.ahead += by


@attrs.define
class World:
    """Everything that there is in one seed."""

    plan: Plan
    config: Config
    market: Market
    time: SkewedTime
    exchanges: MemoryExchanges
    machine: Machine
    trace: Trace
    bug: Bug
    chance: random.Random
    fired: Counter[str]
    service: Service | None = None
    """The collector, while it runs."""
    lives: int = 0
    healed_at: Millis | None = None
    """When the troubles had ended."""
    ends: trio.Event = attrs.field(factory=trio.Event)
    """Set when nothing more is to be done."""
    cuts_in_recovery: list[tuple[int, str]] = attrs.field(factory=list)
    revised: set[tuple[str, int]] = attrs.field(factory=set)
    """(symbol, minute) of which the venue said two different things live."""
    shown: list[str] = attrs.field(factory=list)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _stop: trio.Event = attrs.field(factory=trio.Event)

    def kill(self, how: str) -> None:
        """End the collector here and now, if there is one."""
        if self.service is not None and not self.machine.dead:
            self.machine.cut("rest", how)
            self._scope.cancel()

    def ask_to_stop(self) -> None:
        """As a signal does."""
        self._stop.set()

    # --- one life

    async def live(self) -> bool:
        """One life of the collector; whether it ended in good order, with everything written."""
        self.lives += 1
        self._scope, self._stop = trio.CancelScope(), trio.Event()
        if self.lives > 1 and self.cuts_in_recovery and self.healed_at is None:
            self.machine.arm(*self.cuts_in_recovery.pop(0))
            self.fired["cut in recovery"] += 1
        self.trace.note(f"life {self.lives} begins")
        done = False
        try:
            with self._scope:
                done = await self._collect()
        except* PowerLost:
            pass
        except* StoreUnavailable as errors:
            # A disk that does not let the collector start; once it runs it waits for the disk.
            if self.service is not None:
                raise
            self.fired["refused start"] += 1
            self.trace.note(f"life {self.lives} cannot begin: {errors.exceptions[0]}")
        finally:
            self.service = None
        if self.machine.dead:
            self.machine.restore()
            return False
        return done

    async def _collect(self) -> bool:
        machine, time = self.machine, self.time
        self.bug.before_a_start(machine.root)
        with open_store(machine.root, machine.disk) as store:
            machine.check_nothing_is_lost()
            store.claim("simulated", seed=self.plan.seed, speed=1.0, pivot=0.0, latest_ms=time.now())
            async with open_service(
                self.config,
                self.bug.network(Network(self.exchanges.dial, transport=self.exchanges.transport)),
                self.bug.store(store),
                time,
                offload=machine.offload,
                chance=random.Random(self.chance.random()),
                show=self.shown.append,
                venues=self.bug.over_venues(VENUES),
                histories=self.bug.over_histories(HISTORIES),
            ) as service:
                self.service = service
                await self._stop.wait()
                self.trace.note("asked to stop")
                asked, clock = time.now(), time.ahead
                if self.ends.is_set():
                    self._check_status(service)
            if trio.current_time() * 1000 + self.plan.epoch + clock - asked > LEAVING_SECONDS * 1000:
                raise Broken("stop", "the collector took longer to stop than it may")
        self.trace.note(f"life {self.lives} ended in good order")
        if not service.writing.finished:
            if self.healed_at is not None:
                raise Broken("stop", f"not everything was written: {len(service.writing.pending)} verdicts")
            return False
        if time.ahead == clock:
            self._check_marks(asked)
        return True

    def _check_marks(self, asked: Millis) -> None:
        """Every minute that closed 10 s or more before the signal has its verdict."""
        due = (asked - 10_000) // MINUTE * MINUTE
        late = [f"{venue} {symbol}" for (venue, symbol), mark in marks(self.machine.root).items() if mark < due]
        if late:
            raise Broken("verdicts", f"minutes that closed before {due} have none: {', '.join(late)}")

    def _check_status(self, service: Service) -> None:
        """After all that, the collector is well again; stale is only a venue where nothing was traded lately."""
        now = self.time.now()
        words = {name: venue.status(now) for name, venue in service.board.venues.items()}
        words |= {f"store ({part})": error for part, error in service.board.store_errors.items()}
        ill = {
            name: word for name, word in words.items() if word not in ("[OK]", "[WAIT]") and not self._is_quiet(name)
        }
        if ill:
            raise Broken("status", f"still degraded after {self.plan.quiet_seconds:.0f} s of quiet: {ill}")

    def _is_quiet(self, venue: str) -> bool:
        """Whether no symbol of *venue* was traded for nearly two minutes."""
        now = self.time.true_now()
        return all(
            self.market.first_id_from(venue, symbol, (now - 118_000) * 1000)
            == self.market.first_id_from(venue, symbol, (now - 100) * 1000)
            for symbol in self.plan.symbols.get(venue, ())
        ) and venue in ("coinbase", "kraken")

    # --- all of them

    async def run(self) -> None:
        """Live until the end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._trouble, name="troubles")
            while True:
                done = await self.live()
                if self.ends.is_set():
                    if not done:
                        raise Broken("end", "the last life did not end in good order")
                    break
                pause = self.chance.choice((1.0, self.chance.uniform(1, 20), self.chance.uniform(1, 90)))
                with trio.move_on_after(0.5 if self.healed_at is not None else pause):
                    await self.ends.wait()

    async def _trouble(self) -> None:
        """All the trouble there is, and then none."""
        plan, sites = self.plan, []
        with trio.move_on_after(plan.troubled_seconds):
            async with trio.open_nursery() as nursery:
                for venue, symbols in plan.symbols.items():
                    site = Site(self, self.exchanges[venue], symbols, plan.chance(f"troubles of {venue}"))
                    sites.append(site)
                    nursery.start_soon(trouble_venue, site, plan.rates, name=f"{venue}/troubles")
                nursery.start_soon(trouble_machine, self, plan.rates, plan.chance("troubles of the machine"))
                await trio.sleep_forever()
        for site in sites:
            calm(site)
        machine = self.machine
        machine.disarm()
        machine.errors.clear()
        machine.short_writes, machine.lies = 0, False
        machine.full_until = machine.slow_until = float("-inf")
        self.healed_at = self.time.true_now()
        self.trace.note("no more trouble")
        await trio.sleep(plan.quiet_seconds)
        self.ends.set()
        self.ask_to_stop()


@attrs.frozen
class Outcome:
    """What became of a seed."""

    seed: int
    plan: str
    broken: str | None
    """The name of the first invariant that did not hold."""
    text: str
    digest: str
    fired: dict[str, int]
    minutes: int
    candles: int
    lives: int
    newest: tuple[str, ...]


_MARKETS: dict[int, Market] = {}


def run_seed(
    seed: int, bug: Bug = NONE, tell: Callable[[str], object] | None = None, folder: Path | None = None
) -> Outcome:
    """Everything that happens in *seed*, and whether all invariants hold."""
    plan = plan_of(seed, KINDS)
    market = _MARKETS.setdefault(plan.market, Market(plan.market))  # a pure function that remembers what it computed
    with tempfile.TemporaryDirectory(prefix="simulation-", dir=folder or _fast_folder()) as parent:
        root = Path(parent, "data")
        trace = Trace(str(root), tell)
        fired: Counter[str] = Counter()
        broken, text, end = None, "", End()
        with determined(seed), logged(trace):
            try:
                trio.run(_run, plan, root, market, trace, bug, fired, end, clock=trio.testing.MockClock(0, 0))
            # Whatever ends it is the seed's failure, to be told, and not the campaign's.
            except BaseException as error:
                first = _first(error)
                if isinstance(first, KeyboardInterrupt):
                    raise
                broken = first.name if isinstance(first, Broken) else "died"
                text = str(first)
                if not isinstance(first, Broken):
                    text = f"died: {first!r}\n{''.join(traceback.format_exception(error))}"
        return Outcome(
            seed, str(plan), broken, text.replace(str(root), "."), trace.digest, dict(sorted(fired.items())),
            end.minutes, end.candles, end.lives, tuple(trace.newest),
        )  # fmt: skip


async def _run(plan: Plan, root: Path, market: Market, trace: Trace, bug: Bug, fired: Counter[str], end: End) -> None:
    time = SkewedTime(plan.epoch, plan.skew)
    async with open_exchanges_in_memory(market, time.true_now, tuple(plan.symbols)) as exchanges:
        machine = Machine(root, plan.chance("machine"), trace, fired, bug.ignores)
        world = World(
            plan, config_of(plan, root), market, time, exchanges, machine, trace, bug, plan.chance("lives"), fired
        )
        try:
            await world.run()
        finally:
            end.lives = world.lives
            for exchange in exchanges.exchanges.values():
                for key, times in exchange.faults.fired.items():
                    if key.startswith(("rest ", "corrupt ")):
                        fired[key] += times
        assert world.healed_at is not None
        machine.materialise()
        now = time.true_now()
        judge(plan, root, market, now, world.healed_at, exchanges.exchanges, world.revised, end)
        if plan.seed % SPOILED_ONE_IN == 0:
            judge_the_auditor(root, now, plan.chance("spoiling"))
        trace.note(f"end: {end}")


def _first(error: BaseException) -> BaseException:
    """The leaf that matters: a broken invariant if there is one, else the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_first(one) for one in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, Broken)), leaves[0])


def _fast_folder() -> Path | None:
    """Memory, where there is a file system in it: SQLite syncs at every commit."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else None
