"""A venue's REST: does it answer, what time is it there, does it list our symbols, is it as the code assumes?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from trio_candles.candles.model import MINUTE, Millis, Series, floor_to, utc_text
from trio_candles.network.rest import Rest, converse, open_rest
from trio_candles.preflight.visit import Visit, host_of, look_up_host
from trio_candles.venues.history import Filled, Throttled, Unavailable, Using, settled_until
from trio_candles.venues.listings import Listed, Trading, nearest
from trio_candles.venues.probes import Clock, Finding, Probe
from trio_candles.venues.skew import WARN_MS, WORST_MS, Skew, TimeAnswer

__all__ = ["check_rest"]

T = TypeVar("T")

ANSWER_SECONDS = 7.0
"""For one question, or the few questions of one check, the wait for a budget that starts empty included."""
PROBE_SECONDS = 11.0
"""For a probe, or a fill: Kraken answers once a second."""
SAMPLES = 4
"""Questions about the time, at most: each halves the width of the bounds."""
MINUTES = 30
"""How many settled minutes must be provable."""
GUESSES = 20
"""Wrong symbols for which the nearest names are looked up; each costs milliseconds."""
BUSY = ("BTC", "ETH", "SOL", "XRP")

_DRIFT = "the venue's interface may have changed: look for a newer version, and do not start before"


async def check_rest(visit: Visit) -> None:
    """Everything that is asked over REST, one question after another, within the venue's budget."""
    urls, history = visit.rest_urls, visit.history
    for host, url in {host_of(url): url for url in urls.values()}.items():
        if host != host_of(visit.websocket_url) and not await look_up_host(visit, url):
            return
    async with open_rest(visit.network, urls, history.rates, history.penalty) as rest:
        answers: list[TimeAnswer] = []
        with visit.step("rest", ANSWER_SECONDS):
            answers.append(await _patiently(visit, rest, lambda: _ask_time(visit, rest)))
            visit.checks.passed("rest", f"{urls[None]} answers in {visit.pace.wall_text(_took(answers[0]))}")
        if not answers:
            return
        if Skew.of(answers).certain:
            _judge_clock(visit, Skew.of(answers))
        usable = await _check_symbols(visit, rest)
        symbol = _busiest(usable or visit.settings.symbols)
        ahead = Skew.of(answers).middle
        await _check_assumptions(visit, rest, symbol, lambda: Millis(visit.time.now() + ahead))
        await _check_history(visit, rest, symbol, Millis(visit.time.now() + ahead))
        if not Skew.of(answers).certain:
            await _narrow(visit, rest, answers)
            _judge_clock(visit, Skew.of(answers))


async def _patiently(visit: Visit, rest: Rest, ask: Callable[[], Awaitable[T]]) -> T:
    """What *ask* returns; a second attempt is made if the first found no answer: one bad answer is no failure."""
    try:
        return await ask()
    except Unavailable as error:
        if error.retry_after:
            raise  # no second attempt before the venue wants one
        await trio.sleep(visit.pace.seconds(1))
        return await ask()
    except Throttled as error:
        rest.refused(error)
        raise


# --- the clock --------------------------------------------------------------------------------------------


async def _ask_time(visit: Visit, rest: Rest) -> TimeAnswer:
    answer = await rest.ask(visit.history.server_time())
    now = visit.time.now()
    return TimeAnswer(visit.history.read_time(answer), Millis(now - round(answer.seconds * 1000)), now)


def _took(answer: TimeAnswer) -> float:
    return (answer.answered - answer.asked) / 1000


async def _narrow(visit: Visit, rest: Rest, answers: list[TimeAnswer]) -> None:
    """Ask until the verdict is certain, or no time is left: each question is put at the moment when it says most."""
    with trio.move_on_at(visit.deadline):
        while len(answers) < SAMPLES and not Skew.of(answers).certain:
            await trio.sleep(Skew.of(answers).wait(visit.time.now()))
            try:
                answers.append(await _ask_time(visit, rest))
            except Unavailable:
                return  # the answers so far have to do


def _judge_clock(visit: Visit, skew: Skew) -> None:
    remedy = "set the machine's clock and keep it set by NTP (timedatectl set-ntp true; on Windows w32tm /resync)"
    if abs(skew.middle) > WORST_MS:
        visit.checks.failed("clock", str(skew), remedy)
    elif abs(skew.middle) > WARN_MS:
        visit.checks.warned("clock", str(skew), remedy)
    elif not skew.certain and max(abs(skew.least), abs(skew.most)) > WORST_MS:
        visit.checks.warned("clock", f"{skew}: no better to be known", "the venue answers slowly: see to the network")
    else:
        visit.checks.passed("clock", str(skew))


# --- symbols ----------------------------------------------------------------------------------------------


async def _check_symbols(visit: Visit, rest: Rest) -> list[str]:
    """Those of our symbols that the venue lists and trades."""
    listing = visit.venue.listing

    async def ask() -> dict[str, Listed]:
        return listing.read(await rest.ask(listing.request))

    usable: list[str] = []
    with visit.step("listed", ANSWER_SECONDS):
        listed, unknown = await _patiently(visit, rest, ask), 0
        for symbol in visit.settings.symbols:
            entry = listed.get(symbol)
            if entry is None:
                unknown += 1
                near = nearest(symbol, listed) if unknown <= GUESSES else []
                meant = f"did you mean {' or '.join(near)}?" if near else "take it out of the configuration"
                detail = f"the venue does not list it among its {len(listed)} symbols"
                visit.checks.failed("listed", detail, meant, symbol=symbol)
            elif _check_symbol(visit, entry):
                usable.append(symbol)
    return usable


def _check_symbol(visit: Visit, entry: Listed) -> bool:
    checks, symbol = visit.checks, entry.symbol
    if entry.alias_of is not None:
        checks.failed(
            "listed", f"only another name of {entry.alias_of}: the same trades would be stored twice",
            f"collect {entry.alias_of} instead", symbol=symbol,
        )  # fmt: skip
        return False
    if entry.trading is Trading.CLOSED:
        checks.failed(
            "listed", f"{Trading.CLOSED}: {entry.state}", "take it out of the configuration", symbol=symbol
        )  # fmt: skip
        return False
    since = f", listed since {utc_text(entry.since)[:16]}" if entry.since is not None else ""
    if entry.trading is Trading.LIMITED:
        checks.warned(
            "listed", f"{entry.state}{since}", "its minutes may be empty until it trades freely", symbol=symbol
        )  # fmt: skip
    else:
        checks.passed("listed", f"{entry.state}{since}", symbol=symbol)
    return True


def _busiest(symbols: Sequence[str]) -> str:
    """The symbol of which most trades can be expected: assumptions show themselves where something happens."""
    ranks = {base: rank for rank, base in enumerate(BUSY)}
    return min(symbols, key=lambda symbol: ranks.get(symbol.replace("/", "-").partition("-")[0], len(BUSY)))


# --- what the code takes for granted -----------------------------------------------------------------------


async def _check_assumptions(visit: Visit, rest: Rest, symbol: str, now: Clock) -> None:
    with visit.step("assumptions", PROBE_SECONDS, symbol):
        findings = await _patiently(visit, rest, lambda: _lead(rest, visit.venue.probe(symbol, now)))
        for finding in findings:
            remedy = {"pass": "", "warn": "run preflight again when the market is busier", "fail": _DRIFT}
            visit.checks.add(finding.status, finding.name, finding.detail, remedy[finding.status], symbol)


async def _lead(rest: Rest, probe: Probe) -> list[Finding]:
    try:
        request = next(probe)
        while True:
            request = probe.send(await rest.ask(request))
    except StopIteration as end:
        found: list[Finding] = end.value
        return found


async def _check_history(visit: Visit, rest: Rest, symbol: str, now: Millis) -> None:
    """The gap-filler's own way: are the minutes before now provable, by rows and, where there are any, by trades?"""
    series, until = Series(visit.feed.name, symbol), settled_until(now)
    with visit.step("filling", PROBE_SECONDS, symbol):
        filled = await converse(rest, visit.history.fill(series, Millis(until - MINUTES * MINUTE), until, now))
        missing = sum(span.until - span.since for span in filled.missing) // MINUTE
        detail = f"{MINUTES - missing} of the last {MINUTES} settled minutes are proven over REST"
        if missing == MINUTES:
            visit.checks.failed("filling", f"{detail}: {filled.missing[0].why}", _DRIFT, symbol=symbol)
        elif missing:
            visit.checks.warned("filling", f"{detail}: {filled.missing[0].why}", "gaps may stay open", symbol=symbol)
        else:
            visit.checks.passed("filling", detail, symbol=symbol)
        if visit.history.has_trades:
            await _compare(visit, rest, series, filled, now)


async def _compare(visit: Visit, rest: Rest, series: Series, filled: Filled, now: Millis) -> None:
    """Check that a candle of the venue's rows is the one that is built from its trades."""
    if not filled.candles:
        return  # nothing to compare; the checks of rows and trades have said so
    row = filled.candles[-1]
    minute, name = row.open_time, "rows and trades"
    again = await converse(
        rest, visit.history.fill(series, minute, Millis(minute + MINUTE), now, using=Using.TRADES)
    )  # fmt: skip
    built = next((candle for candle in again.candles if candle.open_time == minute), None)
    when = utc_text(floor_to(minute, MINUTE))[11:16]
    if built is None:
        why = again.missing[0].why if again.missing else "called empty"
        visit.checks.warned(
            name, f"the candle of {when} cannot be built: {why}", "run preflight again", symbol=series.symbol
        )  # fmt: skip
    elif not row.same_as(built):
        detail = f"the candle of {when} is not what its trades make of it: {_prices(row)} and {_prices(built)}"
        visit.checks.failed(name, detail, _DRIFT, symbol=series.symbol)
    else:
        detail = f"the candle of {when} is what its {built.trades_count} trades make of it"
        visit.checks.passed(name, detail, symbol=series.symbol)


def _prices(candle: object) -> str:
    return "/".join(str(getattr(candle, name)) for name in ("open", "high", "low", "close", "volume"))
