"""Preflight under the fake clock, against simulated exchanges in memory: what it says, and that it ends in time."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from history_peer import MARKET
from hypothesis import given
from hypothesis import strategies as st
from world import NOON, config_of

from trio_candles.candles.model import Millis
from trio_candles.clock import SimulatedTime
from trio_candles.command.launch import Plan
from trio_candles.config.load import Aggregation, Config
from trio_candles.network.websocket import Network
from trio_candles.preflight import main
from trio_candles.preflight.checks import Check, Checks, coloured, lines, preflight_document, total
from trio_candles.preflight.local import Machine, bytes_a_day, check_locally
from trio_candles.preflight.run import preflight
from trio_candles.simulator import FOREVER, MemoryExchanges, RestFault, open_exchanges_in_memory
from trio_candles.store.disk import LocalDisk
from trio_candles.store.lock import hold_lock
from trio_candles.store.mounts import Mount, listed_by_linux
from trio_candles.store.schema import JOURNAL, LOCK, TABLES, identity_content
from trio_candles.store.store import open_store
from trio_candles.threads import inline
from trio_candles.venues.okx.feed import Okx
from trio_candles.venues.protocol import Acked, FeedProtocol, Notice
from trio_candles.venues.registry import VENUES
from trio_candles.venues.skew import Skew, TimeAnswer

ROOT = Path(__file__).parents[2]
TOOL = [sys.executable, str(ROOT / "tools" / "preflight.py")]
BUSY = {"coinbase": ("BTC-USD",), "kraken": ("BTC/USD",), "okx": ("BTC-USDT",)}
ALL = {"coinbase": ("BTC-USD", "ETH-USD"), "kraken": ("BTC/USD", "ETH/USD"), "okx": ("BTC-USDT", "ETH-USDT")}
LONGEST = 30.0
"""The contract's, on the wall clock."""

Spoil = Callable[[MemoryExchanges], object]


@attrs.frozen
class Outcome:
    checks: list[Check]
    seconds: float
    """Wall seconds that it took."""
    exchanges: MemoryExchanges

    def of(self, name: str, symbol: str | None = None) -> Check:
        (check,) = [one for one in self.checks if one.name == name and symbol in (None, one.symbol)]
        return check

    def bad(self) -> dict[tuple[str, str | None], str]:
        """What is no pass: (name, symbol) to its status."""
        return {(one.name, one.symbol): one.status for one in self.checks if one.status != "pass"}


def planned_for(config: Config, time: Any, simulate: bool = True) -> Plan:
    return Plan(config, time, simulate, 7 if simulate else None, None, False)


async def resolved(host: str) -> list[str]:
    await trio.lowlevel.checkpoint()
    if not host.endswith(".simulated"):
        raise OSError("Name or service not known")
    return ["192.0.2.1", "192.0.2.2"]


async def look(
    root: Path,
    symbols: dict[str, tuple[str, ...]],
    spoil: Spoil = lambda exchanges: None,
    *,
    ahead: int = 0,
    speed: float = 1.0,
    epoch: int = NOON + 12_345,
    violations: bool = False,
    dial: Callable[[str], Any] | None = None,
    resolve: Any = resolved,
    offload: Any = inline,
    venues: Mapping[str, FeedProtocol] = VENUES,
) -> Outcome:
    """Run preflight on a clock that agrees with the venues' but for *ahead* ms; nothing that it asks is too much."""
    time = SimulatedTime(Millis(epoch), speed)
    async with open_exchanges_in_memory(MARKET, lambda: time.now() + ahead, tuple(symbols)) as exchanges:
        spoil(exchanges)
        config = config_of(root / "data", symbols)
        places = exchanges.endpoints
        settings = tuple(
            attrs.evolve(one, websocket_url=places[one.name].websocket_url, rest_url=places[one.name].rest_url)
            for one in config.venues
        )
        config = attrs.evolve(config, venues=settings)
        network = Network(dial or exchanges.dial, speed=speed, transport=exchanges.transport)
        shown: list[Check] = []
        began = trio.current_time()
        checks = await preflight(
            planned_for(config, time), config, network, Path("config.yaml"), lambda some, _: shown.extend(some),
            offload=offload, resolve=resolve, venues=venues,
        )  # fmt: skip
        seconds = (trio.current_time() - began) / speed
    assert seconds < LONGEST - 2
    assert shown == checks
    assert violations or not any(exchange.violations for exchange in exchanges.exchanges.values())
    assert all(bool(check.remedy) == (check.status != "pass") for check in checks)
    return Outcome(checks, seconds, exchanges)


def only(venue: str) -> dict[str, tuple[str, ...]]:
    return {venue: BUSY[venue]}


# --- when all is well -------------------------------------------------------------------------------------


async def test_all_is_well_with_three_venues_and_every_check_passes(tmp_path, autojump_clock):
    outcome = await look(tmp_path, ALL)
    assert outcome.bad() == {}
    assert {check.venue for check in outcome.checks} == {None, *ALL}
    for venue, symbols in ALL.items():
        for name in ("listed", "subscription"):
            found = [check.symbol for check in outcome.checks if (check.venue, check.name) == (venue, name)]
            assert found == list(symbols)
        names = {check.name for check in outcome.checks if check.venue == venue}
        assert {"dns", "rest", "clock", "connect", "websocket", "messages", "filling"} <= names
    assert preflight_document(outcome.checks).ok is True
    assert not (tmp_path / "data").exists()


async def test_a_whole_market_is_subscribed_in_several_connections(tmp_path, autojump_clock):
    symbols = tuple(f"SIM{number:03}-USD" for number in range(104))
    outcome = await look(tmp_path, {"coinbase": ("BTC-USD", *symbols)})
    assert {outcome.of(name).status for name in ("websocket 1", "websocket 2")} == {"pass"}
    assert {check.status for check in outcome.checks if check.name == "listed"} == {"pass"}
    told = [check for check in outcome.checks if check.name == "subscription"]
    assert len(told) == 105
    assert {check.status for check in told} == {"pass", "warn"}


@pytest.mark.parametrize("speed", [0.5, 60.0])
async def test_at_another_speed_it_ends_in_time_as_well(speed, tmp_path, autojump_clock):
    outcome = await look(tmp_path, only("kraken"), speed=speed)
    assert "fail" not in outcome.bad().values()


# --- hanging, anywhere ------------------------------------------------------------------------------------


def slow(exchanges: MemoryExchanges) -> None:
    for exchange in exchanges.exchanges.values():
        exchange.faults.rest.append(RestFault("slow", times=FOREVER, seconds=600))


def all_faults(**knobs: object) -> Spoil:
    def spoil(exchanges: MemoryExchanges) -> None:
        for exchange in exchanges.exchanges.values():
            for knob, value in knobs.items():
                setattr(exchange.faults, knob, value)

    return spoil


async def hang(*args: object) -> Any:
    await trio.sleep_forever()


@pytest.mark.parametrize("speed", [1.0, 60.0])
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"spoil": slow}, "rest"),
        ({"spoil": all_faults(handshake="silent")}, "websocket"),
        ({"spoil": all_faults(mute=True)}, "websocket"),
        ({"spoil": all_faults(mute_after=1.0)}, None),
        ({"spoil": all_faults(mute_after=1.0, ignore_close=True)}, None),
        ({"dial": hang}, "websocket"),
        ({"resolve": hang}, "dns"),
        ({"offload": hang}, "data directory"),
    ],
    ids=["rest", "handshake", "mute", "mute later", "deaf", "connection", "name", "disk"],
)
async def test_whatever_hangs_it_ends_in_time_and_says_what(options, name, speed, tmp_path, autojump_clock):
    outcome = await look(tmp_path, only("coinbase"), speed=speed, violations=True, **options)
    if name is not None:
        assert outcome.of(name).status == "fail"
        assert " s" in outcome.of(name).detail


async def test_a_venue_that_hangs_does_not_keep_the_others_from_being_told(tmp_path, autojump_clock):
    def spoil(exchanges: MemoryExchanges) -> None:
        exchanges["okx"].faults.handshake = "silent"
        exchanges["okx"].faults.rest.append(RestFault("slow", times=FOREVER, seconds=600))

    outcome = await look(tmp_path, BUSY, spoil)
    assert {check.venue for check in outcome.checks if check.status != "pass"} == {"okx"}
    assert {check.venue for check in outcome.checks if check.name == "subscription"} == {"coinbase", "kraken"}


# --- the clock --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "status"),
    [(0, "pass"), (700, "pass"), (-700, "pass"), (1_500, "warn"), (-1_500, "warn"), (2_500, "fail"), (-2_500, "fail")],
)
@pytest.mark.parametrize(("venue", "second"), [("coinbase", 0), ("okx", 0), ("kraken", 10), ("kraken", 730)])
async def test_the_clock_is_judged_by_each_venues_own(venue, second, ahead, status, tmp_path, autojump_clock):
    outcome = await look(tmp_path, only(venue), ahead=ahead, epoch=NOON + 20_000 + second)
    assert outcome.of("clock").status == status
    assert {key[0] for key in outcome.bad()} <= {"clock"}


@given(
    offset=st.integers(-5_000, 5_000),
    trips=st.lists(st.tuples(st.integers(0, 800), st.integers(0, 800), st.integers(0, 60_000)), min_size=1, max_size=5),
    grain=st.sampled_from([1, 1_000]),
)
def test_the_bounds_of_the_skew_hold_whatever_the_way_there_and_back_takes(offset, trips, grain):
    answers, now = [], 1_768_046_400_000
    for there, back, later in trips:
        now += later
        venue = now + there + offset
        answers.append(TimeAnswer(Millis(venue - venue % grain), Millis(now), Millis(now + there + back)))
        skew = Skew.of(answers)
        # A time on the full second may be one to the millisecond, too: then the bounds are wider, and hold.
        assert skew.least <= offset <= skew.most


def test_an_answer_out_of_a_cache_does_not_make_our_clock_look_ahead_once_another_is_fresh():
    now = 1_768_046_400_000
    fresh = TimeAnswer(Millis(now + 5_000), Millis(now + 5_600), Millis(now + 5_610))
    old = TimeAnswer(Millis(now), Millis(now + 1_990), Millis(now + 2_000))  # what it was two seconds before
    assert Skew.of([old]).middle < -1_000
    assert -620 <= Skew.of([old, fresh]).least <= Skew.of([old, fresh]).most <= 400


def test_each_look_at_a_clock_of_whole_seconds_halves_the_doubt():
    now, offset, answers, widths = 1_768_046_400_000, 1_437, [], []
    for _ in range(4):
        venue = now + 10 + offset
        answers.append(TimeAnswer(Millis(venue - venue % 1_000), Millis(now), Millis(now + 20)))
        skew = Skew.of(answers)
        widths.append(skew.most - skew.least)
        now += round(skew.wait(Millis(now)) * 1_000)
    assert widths[3] < 200 < widths[0]
    assert abs(skew.middle - offset) < 100


# --- symbols ----------------------------------------------------------------------------------------------


async def test_a_symbol_that_is_not_listed_fails_and_its_neighbours_do_not(tmp_path, autojump_clock):
    outcome = await look(tmp_path, {"coinbase": ("BTC-USD", "BTC-USDX", "ETH-USD")})
    assert outcome.bad() == {("listed", "BTC-USDX"): "fail", ("subscription", "BTC-USDX"): "fail"}
    assert "BTC-USD or BTC-USDT" in outcome.of("listed", "BTC-USDX").remedy


async def test_a_symbol_that_is_delisted_or_refused_fails(tmp_path, autojump_clock):
    def spoil(exchanges: MemoryExchanges) -> None:
        exchanges["coinbase"].faults.delisted_symbols.add("ETH-USD")
        exchanges["kraken"].faults.refused_symbols.add("ETH/USD")
        exchanges["okx"].faults.refused_symbols.add("ETH-USDT")

    assert (await look(tmp_path, ALL, spoil)).bad() == {
        ("listed", "ETH-USD"): "fail",
        ("subscription", "ETH-USD"): "fail",
        ("subscription", "ETH/USD"): "fail",
        ("subscription", "ETH-USDT"): "fail",
    }


async def test_a_symbol_that_is_never_acknowledged_fails_and_is_not_waited_for_longer_than_it_is_worth(
    tmp_path, autojump_clock
):
    symbols = {"okx": ("BTC-USDT", "ETH-USDT")}
    outcome = await look(tmp_path, symbols, all_faults(unacknowledged_symbols={"ETH-USDT"}))
    assert outcome.bad() == {("subscription", "ETH-USDT"): "fail"}
    assert "no acknowledgement of candle1m" in outcome.of("subscription", "ETH-USDT").detail
    assert outcome.seconds < 12


class Forgetful(Okx):
    """Answers no subscription of ETH-USDT before it was asked for *times* times."""

    def __init__(self, times: int) -> None:
        self.times, self.asked = times, 0

    def subscribe(self, symbols, request):
        self.asked += "ETH-USDT" in symbols
        return super().subscribe(symbols, request)

    def read(self, text):
        events = super().read(text)
        if self.asked < self.times:
            return [one for one in events if not (isinstance(one, Acked) and one.symbol == "ETH-USDT")]
        return events


@pytest.mark.parametrize(("times", "status"), [(1, "pass"), (2, "pass"), (3, "fail")])
async def test_what_is_not_acknowledged_is_asked_for_again_as_the_collector_does(
    times, status, tmp_path, autojump_clock
):
    """The collector's feed asks twice with the others, five seconds apart, before it asks for a symbol alone."""
    okx = Forgetful(times)
    outcome = await look(
        tmp_path, {"okx": ("BTC-USDT", "ETH-USDT")}, venues={"okx": attrs.evolve(VENUES["okx"], feed=okx)}
    )
    assert outcome.of("subscription", "ETH-USDT").status == status
    assert okx.asked == min(times, 2)


async def test_a_complaint_about_our_pace_is_a_remark_and_no_refusal(tmp_path, autojump_clock):
    class Stern(Okx):
        complained = False

        def read(self, text):
            if "subscribe" in text and not self.complained:
                self.complained = True
                return [Notice("60014 Requests too frequent")]
            return super().read(text)

    outcome = await look(tmp_path, only("okx"), venues={"okx": attrs.evolve(VENUES["okx"], feed=Stern())})
    assert outcome.of("remark").detail == "the venue says: too fast: 60014 Requests too frequent"
    assert "no acknowledgement" in outcome.of("subscription", "BTC-USDT").detail


@pytest.mark.parametrize("venue", ALL)
async def test_a_symbol_without_a_trade_is_a_warning(venue, tmp_path, autojump_clock):
    silent = ALL[venue][1]
    outcome = await look(tmp_path, {venue: ALL[venue]}, all_faults(silent_symbols={silent}))
    assert outcome.bad() == {("subscription", silent): "warn"}
    assert outcome.seconds > 20  # it was given its time


async def test_an_old_trade_told_at_the_start_is_not_taken_for_a_living_market(tmp_path, autojump_clock):
    outcome = await look(tmp_path, {"coinbase": ("BTC-USD", "ALGO-GBP")})
    assert outcome.bad() == {("subscription", "ALGO-GBP"): "warn"}
    assert "the last was" in outcome.of("subscription", "ALGO-GBP").detail


async def test_a_market_that_is_not_in_normal_operation_is_a_warning(tmp_path, autojump_clock):
    outcome = await look(tmp_path, only("kraken"), all_faults(system="post_only"))
    assert outcome.bad() == {("market", None): "warn"}


async def test_messages_that_are_not_understood_are_a_warning(tmp_path, autojump_clock):
    symbols = {"coinbase": ("BTC-USD", "ALGO-GBP")}  # the second one keeps it listening
    outcome = await look(tmp_path, symbols, all_faults(corrupt=["wrong_type"]))
    assert outcome.bad() == {("messages", None): "warn", ("subscription", "ALGO-GBP"): "warn"}
    assert "1 of " in outcome.of("messages").detail


# --- the network ------------------------------------------------------------------------------------------


async def test_a_name_without_an_address_is_said_in_the_systems_words(tmp_path, autojump_clock):
    async def nowhere(host: str) -> list[str]:
        await trio.lowlevel.checkpoint()
        raise OSError("Name or service not known")

    outcome = await look(tmp_path, BUSY, resolve=nowhere)
    assert [check.status for check in outcome.checks if check.name == "dns"] == ["fail"] * 3
    assert "Name or service not known" in next(check for check in outcome.checks if check.name == "dns").detail


async def test_a_connection_that_fails_is_said_in_the_librarys_words(tmp_path, autojump_clock):
    async def untrusted(url: str) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError from OSError("CERTIFICATE_VERIFY_FAILED")

    outcome = await look(tmp_path, only("okx"), dial=untrusted)
    assert outcome.bad() == {("websocket", None): "fail"}
    assert "CERTIFICATE_VERIFY_FAILED" in outcome.of("websocket").detail


async def test_a_connection_lost_once_is_a_warning(tmp_path, autojump_clock):
    def spoil(exchanges: MemoryExchanges) -> None:
        inner = exchanges.dial
        refusals = ["Connection refused"]

        async def dial(url: str) -> trio.abc.Stream:
            if refusals:
                raise ConnectionRefusedError(refusals.pop())
            return await inner(url)

        dials.append(dial)

    dials: list[Any] = []

    async def dial(url: str) -> trio.abc.Stream:
        return await dials[0](url)

    outcome = await look(tmp_path, only("okx"), spoil, dial=dial)
    assert outcome.bad() == {("websocket", None): "warn"}
    assert "Connection refused" in outcome.of("websocket").detail


@pytest.mark.parametrize("venue", BUSY)
@pytest.mark.parametrize("kind", ["status", "html", "throttle", "busy", "disconnect", "truncated"])
async def test_rest_that_is_down_is_a_failure_and_the_feed_is_looked_at_all_the_same(
    venue, kind, tmp_path, autojump_clock
):
    def spoil(exchanges: MemoryExchanges) -> None:
        exchanges[venue].faults.rest.append(RestFault(kind, times=FOREVER))

    outcome = await look(tmp_path, only(venue), spoil)
    assert outcome.bad() == {("rest", None): "fail"}
    assert outcome.of("subscription").status == "pass"


@pytest.mark.parametrize("path", ["time", "Time", "products", "AssetPairs", "instruments"])
async def test_one_bad_answer_is_no_failure(path, tmp_path, autojump_clock):
    venue = {"time": "okx", "Time": "kraken", "products": "coinbase", "AssetPairs": "kraken", "instruments": "okx"}[
        path
    ]
    outcome = await look(tmp_path, only(venue), all_faults(rest=[RestFault("status", path=path, times=1)]))
    assert outcome.exchanges[venue].faults.fired
    assert outcome.bad() == {}


@pytest.mark.parametrize(
    ("venue", "fault", "name"),
    [
        ("coinbase", RestFault("html", path="products?", times=FOREVER), "listed"),
        ("coinbase", RestFault("status", path="candles", times=FOREVER), "assumptions"),
        ("kraken", RestFault("wrong_symbol", path="OHLC", times=FOREVER), "assumptions"),
        ("okx", RestFault("short", path="candles", times=FOREVER), "page ends"),
        ("coinbase", RestFault("wrong_symbol", path="after", times=FOREVER), "cursor"),
    ],
)
async def test_what_has_changed_is_found(venue, fault, name, tmp_path, autojump_clock):
    outcome = await look(tmp_path, only(venue), all_faults(rest=[fault]))
    assert outcome.of(name).status == "fail"


async def test_rows_that_are_not_what_their_trades_make_of_them_are_a_failure(tmp_path, autojump_clock):
    def spoil(exchanges: MemoryExchanges) -> None:
        exchange = exchanges["kraken"]
        inner = exchange.answer

        async def answer(request: Any) -> Any:
            response = await inner(request)
            if not request.path.endswith("/Trades"):
                return response
            document = json.loads(response.body)
            (name,) = set(document["result"]) - {"last"}
            for row in document["result"][name]:
                row[1] = "9.00000000"
            return attrs.evolve(response, body=json.dumps(document).encode())

        exchange.answer = answer

    assert (await look(tmp_path, only("kraken"), spoil)).bad() == {("rows and trades", "BTC/USD"): "fail"}


# --- this machine -----------------------------------------------------------------------------------------


def locally(
    root: Path, *, machine: Machine | None = None, simulate: bool = False, config: Config | None = None
) -> dict[str, Check]:
    config = attrs.evolve(config or config_of(root / "data", BUSY), log_dir=root / "logs")
    machine = machine or Machine(free=lambda path: 10**12, mounts=list)
    checks = check_locally(planned_for(config, None, simulate), Path("config.yaml"), machine)
    assert len({check.name for check in checks.done}) == len(checks.done)
    return {check.name: check for check in checks.done}


def statuses(found: dict[str, Check]) -> dict[str, str]:
    return {name: check.status for name, check in found.items() if check.status != "pass"}


def tree(root: Path) -> list[tuple[str, int]]:
    return sorted((str(path.relative_to(root)), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file())


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_directory_that_was_not_there_is_not_there_afterwards(tmp_path):
    found = locally(tmp_path)
    assert statuses(found) == {}
    assert set(found) >= {"configuration", "versions", "data directory", "disk space", "lock", "contents"}
    assert names(tmp_path) == []


def test_a_directory_that_was_there_is_untouched(tmp_path):
    with open_store(tmp_path / "data") as store:
        store.claim("real", seed=None, speed=1.0, pivot=0.0, latest_ms=NOON)
    (tmp_path / "data" / ".tmp" / "somebody").write_text("else's")
    (tmp_path / "logs").mkdir()
    before, folders = tree(tmp_path), names(tmp_path)
    assert statuses(locally(tmp_path)) == {}
    assert (tree(tmp_path), names(tmp_path)) == (before, folders)


def test_beside_a_running_collector_it_says_so_and_touches_nothing_of_it(tmp_path):
    with open_store(tmp_path / "data") as store:
        store.claim("real", seed=None, speed=1.0, pivot=0.0, latest_ms=NOON)
        before = [one for one in tree(tmp_path / "data") if not one[0].endswith("-shm")]
        found = locally(tmp_path)
        assert statuses(found) == {"lock": "fail"}
        assert "another collector holds" in found["lock"].detail
        assert [one for one in tree(tmp_path / "data") if not one[0].endswith("-shm")] == before
        store.stopped(NOON)


def test_a_lock_held_for_whatever_reason_is_a_failure(tmp_path):
    (tmp_path / "data").mkdir()
    with hold_lock(tmp_path / "data" / LOCK):
        assert statuses(locally(tmp_path)) == {"lock": "fail"}


def test_candles_of_the_other_kind_are_a_failure(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "identity.json").write_bytes(identity_content("simulated", 7, 60.0, 0.0))
    assert statuses(locally(tmp_path)) == {"contents": "fail"}
    assert statuses(locally(tmp_path, simulate=True)) == {}


@pytest.mark.parametrize(
    ("format_", "status"),
    [
        ("1", "pass"),
        ("2", "pass"),
        ("3", "pass"),
        ("4", "pass"),
        ("5", "pass"),
        ("6", "pass"),
        ("7", "pass"),
        ("8", "fail"),
    ],
)
def test_a_journal_of_another_version_is_a_failure_unless_it_can_be_brought_up(format_, status, tmp_path):
    (tmp_path / "data").mkdir()
    database = sqlite3.connect(tmp_path / "data" / JOURNAL)
    database.executescript(TABLES)
    database.execute("INSERT INTO meta VALUES ('format', ?)", (format_,))
    database.commit()
    database.close()
    assert locally(tmp_path)["contents"].status == status


def test_a_journal_that_cannot_be_read_is_a_warning_because_the_start_mends_it(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / JOURNAL).write_bytes(b"no database at all" * 100)
    assert statuses(locally(tmp_path)) == {"contents": "warn"}


@attrs.define
class BadDisk(LocalDisk):
    """Fails at one call."""

    at: str = ""
    number: int = errno.ENOSPC

    def _do(self, what: str) -> None:
        if what == self.at:
            raise OSError(self.number, os.strerror(self.number))

    def write_new(self, path: Path, content: bytes) -> None:
        self._do("write_new")
        super().write_new(path, content)

    def replace(self, source: Path, target: Path) -> None:
        self._do("replace")
        super().replace(source, target)

    def sync_folder(self, path: Path) -> None:
        self._do("sync_folder")
        super().sync_folder(path)

    def read(self, path: Path) -> bytes:
        content = super().read(path)
        return content[:-1] + b"?" if self.at == "read" else content


@pytest.mark.parametrize("at", ["write_new", "replace", "sync_folder", "read"])
def test_a_disk_that_fails_anywhere_on_a_day_files_way_is_a_failure_and_nothing_is_left(at, tmp_path):
    machine = Machine(BadDisk(at=at), free=lambda path: 10**12, mounts=list)
    found = locally(tmp_path, machine=machine)
    assert found["data directory"].status == "fail"
    if at != "read":
        assert os.strerror(errno.ENOSPC) in found["data directory"].detail
    assert names(tmp_path) == []


@pytest.mark.parametrize("there", ["data", "logs"])
def test_a_file_where_a_directory_belongs_is_a_failure(there, tmp_path):
    (tmp_path / there).write_text("")
    assert statuses(locally(tmp_path)) == {{"data": "data directory", "logs": "log directory"}[there]: "fail"}
    assert names(tmp_path) == [there]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows opens no directory, not even to look for a lock")
@pytest.mark.parametrize(
    ("there", "name"),
    [
        ("data/collector.lock", "lock"),
        ("data/journal.sqlite3", "contents"),
        ("logs/collector.log", "log directory"),
    ],
)
def test_a_directory_where_a_file_belongs_is_a_failure(there, name, tmp_path):
    (tmp_path / there).mkdir(parents=True)
    assert statuses(locally(tmp_path)) == {name: "fail"}
    assert names(tmp_path) == [there.partition("/")[0], there]


@pytest.mark.skipif(sys.platform == "win32", reason="a link needs a privilege on Windows")
def test_a_journal_that_may_not_be_opened_is_a_failure_though_the_lock_may_not_be_either(tmp_path):
    (tmp_path / "data" / JOURNAL).mkdir(parents=True)
    (tmp_path / "data" / LOCK).symlink_to(tmp_path / "data" / LOCK)  # opens for nobody, whoever runs the tests
    assert statuses(locally(tmp_path)) == {"lock": "fail", "contents": "fail"}


@pytest.mark.parametrize("there", ["okx", "okx/BTC-USDT", "okx/BTC-USDT/1m", "okx/BTC-USDT/4h"])
def test_a_file_where_the_folder_of_a_series_belongs_is_a_failure(there, tmp_path):
    (tmp_path / "data" / there).parent.mkdir(parents=True)
    (tmp_path / "data" / there).write_text("")
    found = locally(tmp_path, config=attrs.evolve(config_of(tmp_path / "data", BUSY), aggregation=Aggregation()))
    assert statuses(found) == {"data directory": "fail"}
    assert str(tmp_path / "data" / there) in found["data directory"].detail
    config = config_of(tmp_path / "data", {"kraken": ("BTC/USD",)})
    assert statuses(locally(tmp_path, config=config)) == {}  # no series of ours


def test_room_for_less_than_a_month_is_a_warning_and_for_less_than_a_day_a_failure(tmp_path):
    symbols = {"okx": tuple(f"SIM{number:03}-USDT" for number in range(1000))}
    config = config_of(tmp_path / "data", symbols)
    day = bytes_a_day(config)
    assert 1000 * 1440 * 80 <= day <= 1000 * 1440 * 100

    def status(free: int) -> str:
        return locally(tmp_path, config=config, machine=Machine(free=lambda path: free, mounts=list))[
            "disk space"
        ].status

    assert (status(day - 1), status(day), status(30 * day - 1), status(30 * day)) == ("fail", "warn", "warn", "pass")
    few = locally(tmp_path, machine=Machine(free=lambda path: 99_999_999, mounts=list))
    assert few["disk space"].status == "fail"


@pytest.mark.parametrize(
    ("kind", "status"),
    [("ext4", "pass"), ("nfs4", "fail"), ("cifs", "fail"), ("fuse.sshfs", "fail"), ("tmpfs", "warn"), ("9p", "fail")],
)
def test_a_file_system_over_a_network_is_a_failure_and_one_in_memory_a_warning(kind, status, tmp_path):
    place = str(tmp_path.resolve()).replace(" ", "\\040")
    mounts = f"disk / ext4 rw 0 0\nother {place}/other xfs rw 0 0\nthis {place} {kind} rw 0 0\n"
    machine = Machine(free=lambda path: 10**12, mounts=lambda: listed_by_linux(mounts))
    found = locally(tmp_path, machine=machine)["file system"]
    assert (found.status, kind in found.detail) == (status, True)


@pytest.mark.parametrize("part", ["okx", "okx/BTC-USDT/1m"])
def test_a_directory_that_spans_file_systems_is_a_failure_that_names_both(part, tmp_path):
    place = tmp_path.resolve() / "data" / part
    place.mkdir(parents=True)
    machine = Machine(free=lambda path: 10**12, mounts=lambda: [Mount("/", "ext4"), Mount(str(place), "xfs")])
    found = locally(tmp_path, machine=machine)["file system"]
    assert found.status == "fail"
    assert f"{part} lies on another file system (xfs at {place})" in found.detail
    assert "ext4 at /" in found.detail


# --- as text, as JSON, as a command -------------------------------------------------------------------------


def test_a_line_per_check_and_what_to_do_below_it():
    checks = Checks("okx")
    checks.passed("rest", "well")
    checks.warned("market", "bell\a", "wait")
    checks.failed("listed", "not there", "look", symbol="A-B")
    assert list(lines(checks.done)) == [
        "[PASS] okx rest: well",
        "[WARN] okx market: bell\\x07",
        "       wait",
        "[FAIL] okx A-B listed: not there",
        "       look",
    ]
    assert total(checks.done) == "NOT READY: 3 checks, 1 passed, 1 warning, 1 failed"
    assert total(checks.done[:2]) == "READY, with warnings: 2 checks, 1 passed, 1 warning, 0 failed"
    assert coloured("[PASS] x") == "\x1b[32m[PASS]\x1b[0m x"
    assert coloured("       x") == "       x"


def test_a_whole_market_that_passes_is_one_line_and_what_does_not_is_one_each():
    checks = Checks("okx")
    for number in range(1000):
        add = checks.failed if number in (7, 8) else checks.passed
        add("listed", "live", *(["look"] if number in (7, 8) else []), symbol=f"S{number}")
    told = list(lines(checks.done))
    assert [line for line in told if line.startswith("[FAIL]")] == [
        "[FAIL] okx S7 listed: live",
        "[FAIL] okx S8 listed: live",
    ]
    assert len([line for line in told if line.startswith("[PASS]")]) < 10


@pytest.fixture
def home(tmp_path):
    folders = {"data_dir": str(tmp_path / "data"), "log_dir": str(tmp_path / "logs")}
    (tmp_path / "config.yaml").write_text(json.dumps({**folders, "venues": {"okx": {"symbols": ["BTC-USDT"]}}}))
    return tmp_path


def ran(home: Path, *options: str) -> int:
    return main(["--config", str(home / "config.yaml"), *options])


def test_offline_it_asks_nobody(home, capsys):
    assert ran(home, "--offline") == 0
    out, err = capsys.readouterr()
    assert "config.yaml: 1 venue, 1 symbol" in out
    assert out.splitlines()[-1].startswith("READY")
    assert err == ""
    assert names(home) == ["config.yaml"]


def test_its_json_is_one_document(home, capsys):
    (home / "afile").write_text("")
    assert ran(home, "--offline", "--json", "--data-dir", str(home / "afile")) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert set(document) == {"ok", "checks", "totals"}
    assert all(set(check) == {"name", "venue", "symbol", "status", "detail", "remedy"} for check in document["checks"])
    assert document["totals"]["fail"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--config", "absent.yaml"], "absent.yaml:1: cannot be read"),
        (["--speed", "2"], "okx has others"),
        (["--pivot", "2"], "okx has others"),
        (["--seed", "2"], "--seed goes with --simulate only"),
    ],
)
def test_usage_and_configuration_are_judged_as_the_collector_does(options, words, home, capsys):
    assert ran(home, *options, "--offline") == 2
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""


def test_a_directory_of_the_other_kind_is_a_failed_check_not_a_refusal(home, capsys):
    (home / "data").mkdir()
    (home / "data" / "identity.json").write_bytes(identity_content("simulated", 7, 60.0, 0.0))
    assert ran(home, "--offline") == 1
    assert "[FAIL] contents:" in capsys.readouterr().out


def started(home: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*TOOL, *options], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_as_a_process_it_asks_simulated_exchanges_over_loopback(home):
    process = started(home, "--simulate", "--json", "--speed", "2")
    out, err = process.communicate(timeout=60)
    document = json.loads(out)
    failed: Sequence[object] = [check for check in document["checks"] if check["status"] == "fail"]
    assert (process.returncode, err, failed) == (0, "", [])
    assert {check["venue"] for check in document["checks"]} == {None, "okx"}
    assert names(home) == ["config.yaml"]


@pytest.mark.slow
def test_what_the_feed_logs_is_in_the_report_and_not_on_stderr(home):
    (home / "config.yaml").write_text("venues: {okx: {symbols: [BTC-USDT, BTC-USDX]}}")
    process = started(home, "--simulate", "--speed", "20")
    out, err = process.communicate(timeout=60)
    assert "[FAIL] okx BTC-USDX subscription: refused: " in out
    assert (process.returncode, err) == (1, "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals between processes differ on Windows")
def test_interrupted_it_says_so_and_leaves_nothing_behind(home):
    process = started(home, "--simulate")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert names(home) == ["config.yaml"]
