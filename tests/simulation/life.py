"""Lives of the collector, one after another, over one disk; and what is checked while they last."""

from __future__ import annotations

import math
import random
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
import trio
import trio.testing

from simulation.bugs import NONE, Bug, SealsNothing
from simulation.days import judge_the_start
from simulation.determinism import determined
from simulation.followers import Followers
from simulation.losses import suffer
from simulation.machine import Machine, PowerLost
from simulation.oracle import Case, End, judge
from simulation.outcome import Outcome
from simulation.plan import LONG, PAST, Plan, config_of, plan_of
from simulation.record import KNOBS, Record
from simulation.stored import bounds, marks
from simulation.trace import Broken, Trace, logged
from simulation.troubles import KINDS, calm_machine, calm_venue, trouble_machine, trouble_venue
from simulation.venue_troubles import outage, told_to_wait
from simulation.views import judge_beside, judge_the_auditor
from simulation.ways import Site
from trio_candles.candles.model import DAY, MINUTE, Millis
from trio_candles.clock import SimulatedTime
from trio_candles.collector.service import Service, open_service
from trio_candles.network.websocket import Network
from trio_candles.simulator import Market, MemoryExchanges, open_exchanges_in_memory
from trio_candles.store.store import StoreUnavailable, open_store
from trio_candles.venues.registry import VENUES

__all__ = ["Outcome", "World", "run_seed"]

LEAVING_SECONDS = 30.0
"""A clean stop takes ten at most; a collector that is still there after that is stuck."""

UNWELL_SECONDS = 200.0
"""So long after an illness of clock or disk the collector may be late with its minutes."""
VOUCHED_WITHIN = 31_000
"""Ms by which a clock that a venue vouches for may be wrong: thirty seconds, and what it takes to say so."""

SPOILED_ONE_IN = 4
"""Seeds after which something is spoiled that the audit must find."""


@attrs.define
class SkewedTime:
    """The service's clock; the venues' is the true one."""

    epoch: Millis
    ahead: int
    speed: float = 1.0
    jumped: float = float("-inf")
    """When it was set last, on trio's clock."""

    def now(self) -> Millis:
        return Millis(self.true_now() + self.ahead)

    def true_now(self) -> Millis:
        return SimulatedTime(self.epoch).now()

    def jump(self, by: int) -> None:
        """Set the clock *by* ms ahead."""
        self.ahead += by
        self.jumped = trio.current_time()


@attrs.define
class World:
    """Everything that there is in one seed."""

    plan: Plan
    record: Record
    market: Market
    time: SkewedTime
    exchanges: MemoryExchanges
    machine: Machine
    trace: Trace
    bug: Bug
    chance: random.Random
    fired: Counter[str]
    followers: Followers
    service: Service | None = None
    """The collector, while it runs."""
    lives: int = 0
    healed_at: Millis | None = None
    """When the troubles had ended."""
    down_until: float = float("-inf")
    """Until then nobody starts the collector."""
    earliest: dict[tuple[str, str], int] = attrs.field(factory=dict)
    """The first minute that a life, once it knew the time, expected."""
    began: int | None = None
    """When the first life began, in truth."""
    expects: bool = False
    """Whether this life has begun to expect minutes: it does once it knows the time."""
    ends: trio.Event = attrs.field(factory=trio.Event)
    """Set when nothing more is to be done."""
    cuts_in_recovery: list[tuple[int, str]] = attrs.field(factory=list)
    revised: set[tuple[str, int]] = attrs.field(factory=set)
    """(symbol, minute) of which the venue said two different things live."""
    shown: list[str] = attrs.field(factory=list)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _stop: trio.Event = attrs.field(factory=trio.Event)
    _troubled: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def kill(self, how: str) -> None:
        """End the collector here and now, if there is one."""
        if self.service is not None and not self.machine.dead:
            self.machine.cut("rest", how)
            self._scope.cancel()

    def ask_to_stop(self) -> None:
        """As a signal does."""
        self._stop.set()

    @property
    def is_stopping(self) -> bool:
        """Whether the collector of this life has been asked to stop."""
        return self._stop.is_set()

    @property
    def is_well(self) -> bool:
        """Whether clock and disk have been well for some time, and nobody has asked the collector to stop."""
        machine = self.machine
        unwell = max(
            self.time.jumped,
            machine.full_until,
            machine.slow_until,
            machine.lost_at,
            *(e.until for e in machine.errors),
        )
        return not self.is_stopping and trio.current_time() >= unwell + UNWELL_SECONDS

    @property
    def is_down(self) -> bool:
        """Whether nobody starts the collector now."""
        return trio.current_time() < self.down_until

    def stay_down(self, seconds: float) -> None:
        """Do not start the collector for so long; the troubles end as much later."""
        self.down_until = trio.current_time() + seconds
        self._troubled.deadline += seconds

    def look_in(self, what: str) -> bool:
        """Audit what is there, in the midst of *what*; ``False`` if this is no time to blame anybody.

        What the audit expects of a running collector, it need not have where its clock or its disk were unwell.
        """
        if self.service is None or not self.is_well:
            return False
        self.fired["audited"] += 1
        judge_beside(self.machine, self.time.now(), what)
        return True

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
        self.followers.close()
        if self.machine.dead:
            self.machine.restore()
            return False
        return done

    def told(self, call: str) -> None:
        """The store has done *call*: nothing that it holds is of a time that a right clock would not have shown."""
        self.followers.after(call)
        if call not in ("expect", "commit"):
            return
        true, lookback = self.time.true_now(), self.plan.lookback_of(self.lives) * MINUTE
        if call == "expect":
            self.expects = True
            expected = self.time.now() // MINUTE * MINUTE - lookback
            for venue, symbols in self.plan.symbols.items():
                for one in ((venue, symbol) for symbol in symbols if (venue, symbol) != self.plan.lacks(self.lives)):
                    self.earliest[one] = min(expected, self.earliest.get(one, expected))
        assert self.began is not None
        first, mark = bounds(self.machine.root)
        longest = max(lookback, self.plan.lookback_minutes * MINUTE)
        # Of what a lost journal expected, nothing is known but the days.
        unit = DAY if "journal" in self.machine.lost else MINUTE
        if first < (self.began - VOUCHED_WITHIN - longest) // unit * unit:
            raise Broken("clock", f"minutes from {first} on are expected; the first start was at {self.began}")
        if mark > true + VOUCHED_WITHIN:
            raise Broken("clock", f"minutes up to {mark} are accounted for, and it is {true}")

    async def _collect(self) -> bool:
        machine, time, plan = self.machine, self.time, self.plan
        machine.receive_visitor()
        suffer(machine)
        if plan.upgraded and self.lives > 1:
            machine.bring_down()
        self.bug.before_a_start(machine.root)
        self.expects = False
        if self.began is None:
            self.began = time.true_now()
        # Only where it matters, because it is one more moment at which the power may go.
        go_on = (lambda *_: machine.point("go on")) if plan.shape in PAST else _go_on
        with open_store(machine.root, machine.disk, go_on) as store:
            self.bug.after_a_start(store, machine)
            machine.check_nothing_is_lost()
            judge_the_start(machine)
            store.claim("simulated", seed=self.plan.seed, speed=1.0, pivot=0.0)
            async with open_service(
                config_of(plan, machine.root, self.lives, healed=self.healed_at is not None),
                self.bug.network(Network(self.exchanges.dial, transport=self.exchanges.transport)),
                self.bug.store(store if machine.is_of_today or not plan.upgraded else SealsNothing(store)),
                time,
                offload=self.bug.offload(self),
                chance=random.Random(self.chance.random()),
                show=self.shown.append,
                venues=self.bug.over_venues(VENUES),
                of_wall=self.plan.asks_time,
                clock=self.bug.clock(time),
            ) as service:
                self.service = service
                await self._stop.wait()
                self.trace.note("asked to stop")
                asked, clock, healed = time.now(), time.ahead, self.healed_at is not None
                if self.ends.is_set():
                    self._check_status(service)
                    if not self.expects:
                        raise Broken("clock", f"nothing is expected after {self.plan.quiet_seconds:.0f} s of quiet")
            if trio.current_time() * 1000 + self.plan.epoch + clock - asked > LEAVING_SECONDS * 1000:
                raise Broken("stop", "the collector took longer to stop than it may")
        self.trace.note(f"life {self.lives} ended in good order")
        if not service.writing.finished:
            if healed:
                raise Broken("stop", f"not everything was written: {len(service.writing.pending)} verdicts")
            return False
        if self.expects and trio.current_time() > time.jumped + UNWELL_SECONDS:
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
                with trio.move_on_at(max(self.down_until, trio.current_time() + min(pause, self._longest_pause()))):
                    await self.ends.wait()

    def _longest_pause(self) -> float:
        return math.inf if self.healed_at is None else 0.5

    async def _set_right(self) -> None:
        """Somebody sees that the clock has been wrong from the beginning, and sets it right."""
        if not self.plan.wrong:
            return
        try:
            await trio.sleep(self.plan.wrong_seconds)
        finally:
            self.time.jump(-self.plan.wrong)
            self.fired[f"wrong {self.plan.wrong_sort}"] += 1

    async def _upgrade(self) -> None:
        """Somebody stops the collector, for a newer version."""
        await trio.sleep(self.chance.uniform(200, 900))
        if self.lives == 1:
            if self.chance.random() < 0.5:
                self.cuts_in_recovery.append((self.chance.randint(1, 12), self.chance.choice(("power", "kill"))))
            self.ask_to_stop()

    async def _trouble(self) -> None:
        """All the trouble there is, and then none."""
        plan = self.plan
        sites = [
            Site(self, self.exchanges[venue], symbols, plan.chance(f"troubles of {venue}"))
            for venue, symbols in plan.symbols.items()
        ]
        self._troubled.deadline = trio.current_time() + plan.troubled_seconds
        with self._troubled:
            async with trio.open_nursery() as nursery:
                for site in sites:
                    nursery.start_soon(trouble_venue, site, plan.rates, name=f"{site.venue}/troubles")
                nursery.start_soon(trouble_machine, self, plan.rates, plan.chance("troubles of the machine"))
                nursery.start_soon(self._set_right, name="clock")
                if plan.upgraded:
                    nursery.start_soon(self._upgrade, name="upgrade")
                await trio.sleep_forever()
        calm_machine(self)
        for site in sites:
            calm_venue(site, self.record)
            if plan.shape in LONG:
                await (outage if plan.shape == "outage" else told_to_wait)(site, plan.shape_seconds)
                calm_venue(site, self.record)
        if plan.shape == "pause":
            self.stay_down(plan.shape_seconds)
            self.ask_to_stop()
            self.trace.note("a pause")
            await trio.sleep(plan.shape_seconds)
        self.healed_at = self.time.true_now()
        self.trace.note("no more trouble")
        if plan.lacks(self.lives):
            self.ask_to_stop()
            self.fired["put back"] += 1
        await trio.sleep(plan.quiet_seconds)
        self.ends.set()
        self.ask_to_stop()


_MARKETS: dict[int, Market] = {}


def _market_of(plan: Plan) -> Market:
    """The market: a pure function, which remembers what it computed."""
    if plan.listed:
        return Market(plan.market, plan.listed)
    return _MARKETS.setdefault(plan.market, Market(plan.market))


def run_seed(
    seed: int, bug: Bug = NONE, tell: Callable[[str], object] | None = None, folder: Path | None = None
) -> Outcome:
    """Everything that happens in *seed*, and whether all invariants hold."""
    plan = plan_of(seed, KINDS)
    market = _market_of(plan)
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
    time, record = SkewedTime(plan.epoch, plan.skew + plan.wrong), Record(plan)
    if plan.wrong:
        time.jumped = 0.0
    async with open_exchanges_in_memory(market, time.true_now, tuple(plan.symbols)) as exchanges:
        for venue, exchange in exchanges.exchanges.items():
            record.spoil(venue, exchange.faults)
        machine = Machine(root, plan.chance("machine"), trace, fired, plan.chance("looking"), bug.ignores)
        followers = Followers(plan, machine, plan.chance("followers"), bug.follower)
        world = World(
            plan, record, market, time, exchanges, machine, trace, bug, plan.chance("lives"), fired, followers
        )
        machine.look_in, machine.told, machine.losing = world.look_in, world.told, plan.chance("losing")
        machine.believed = lambda: time.true_now() + VOUCHED_WITHIN
        try:
            await world.run()
        finally:
            end.lives = world.lives
            for exchange in exchanges.exchanges.values():
                for key, times in exchange.faults.fired.items():
                    if key.startswith(("rest ", "corrupt ")) or key in (*KNOBS, "cached", "asked_anew"):
                        fired[key] += times
            fired["stuck"] += sum(len(some) for some in plan.stuck.values())
        assert world.healed_at is not None
        machine.materialise(root)
        case = Case(
            plan, record, market, root, time.true_now(), world.healed_at, world.earliest, exchanges.exchanges,
            world.revised, machine.acknowledged, machine.has_lied or bool(machine.lost),
            plan.timeframes_of(world.lives), followers,
        )  # fmt: skip
        followers.finish()
        judge(case, end, fired)
        if plan.seed % SPOILED_ONE_IN == 0:
            judge_the_auditor(root, case.now, plan.chance("spoiling"))
        trace.note(f"end: {end}")


def _go_on(*_: object) -> None:
    """Nothing stops an opening."""


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
