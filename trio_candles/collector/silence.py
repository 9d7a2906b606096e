"""What silence means, once a venue is known to be there: of a whole connection, and of one symbol among others.

A connection without market data is *stalled* and made anew, ever more rarely: its market may just be quiet. A
heartbeat that names the newest trade proves the quiet where we have received that trade, and is no data where we
have not: so data is missed from the moment at which the venue's heartbeats run ahead of us.

Of one symbol that falls silent, the venue's limits say whether the silence proves a fault (Coinbase sends a heartbeat
for each product, once a second) or is a suspicion (OKX)::

    proof:      SUBSCRIBED ──all are silent──► the connection is made anew
                SUBSCRIBED ──silent──► blamed: the connection is made anew ──silent again within an hour──► SILENT
    suspicion:  SUBSCRIBED ──silent──► subscribed anew; the patience doubles, up to an hour

Invariant: one symbol costs its connection, and so the others' minutes, at most once in an hour.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from trio_candles.collector.subscriptions import Connection, Feed, State, ask, can_spare, give_up, unsubscribe
from trio_candles.venues.protocol import Event, Forming, Heartbeat, Row, Traded, TradeSeen

__all__ = ["check_stall", "check_symbols", "note_data"]

log = logging.getLogger(__name__)

BLAME_SECONDS = 3600.0
"""In which one symbol's silence may cost its connection once; silent a second time, the symbol is given up."""
REMEDY_SECONDS = 60.0
"""Between two rounds of subscribing anew on one connection: all suspects share its messages."""
RAREST_REMEDY = 3600.0
"""Seconds of silence, at most, before a symbol is subscribed anew, or a stalled connection is made anew."""
STALLED_SECONDS = 120.0
"""Without market data until a connection that is otherwise alive is made anew; where the venue's remedy for silent
symbols is to subscribe them anew, twice the silence that leads to it instead. A market may be so quiet: each time the
patience doubles, up to an hour, and it is short again after six hours without a stall."""
STALLS_FORGOTTEN = 6 * 3600.0


# --- stalled connections ----------------------------------------------------------------------------------


def note_data(connection: Connection, event: Event) -> None:
    """Take note that *event* came: market data, or a heartbeat by which all market data has been received."""
    match event:
        case Traded(symbol, trade):
            connection.newest[symbol] = max(connection.newest.get(symbol, 0), trade.trade_id)
        case Heartbeat(symbol, _, last_trade_id) if last_trade_id != connection.newest.get(symbol):
            if last_trade_id > connection.newest.get(symbol, last_trade_id):
                connection.behind_since.setdefault(symbol, connection.last_frame)
            return
        case Heartbeat(symbol):
            connection.behind_since.pop(symbol, None)
        case TradeSeen() | Row() | Forming():
            pass
        case _:
            return
    connection.last_data = connection.last_frame


def check_stall(feed: Feed, connection: Connection, now: float) -> None:
    """End *connection*, to be made anew, if it is alive and its lack of market data has outlasted the patience."""
    count, last = feed.stalls.get(connection.number, (0, float("-inf")))
    if now - last >= STALLS_FORGOTTEN:
        count = 0
    remedy_after = feed.limits.symbol_remedy == "resubscribe" and feed.limits.symbol_silence
    patience = min((2 * remedy_after if remedy_after else STALLED_SECONDS) * 2**count, RAREST_REMEDY)
    silent = now - min([connection.last_data, *connection.behind_since.values()])
    if silent >= feed.floor(patience):
        feed.stalls[connection.number] = (min(count + 1, 10), now)
        connection.hang_up(f"no market data for {silent:.0f} s, though the venue is there")


# --- silent symbols ---------------------------------------------------------------------------------------


def check_symbols(feed: Feed, connection: Connection, now: float) -> None:
    """Do something about subscribed symbols that are silent for too long."""
    limit = feed.limits.symbol_silence
    if limit is None:
        return
    silences = {
        symbol: now - connection.last_heard[symbol]
        for symbol, request in connection.requests.items()
        if request.state is State.SUBSCRIBED
    }
    silent = [symbol for symbol, silence in silences.items() if silence >= feed.floor(limit)]
    if not silent:
        return
    if feed.limits.symbol_remedy == "resubscribe":
        _subscribe_anew(feed, connection, silent, now)
    elif min(silences.values()) >= feed.floor(limit / 2):
        connection.hang_up(f"no symbol has spoken for {min(silences.values()):.0f} s")
    else:
        _blame(feed, connection, silent, now)


def _blame(feed: Feed, connection: Connection, silent: Sequence[str], now: float) -> None:
    """Others are heard: make a new connection for the sake of *silent* symbols, and give up those symbols for whose
    sake that was done within the hour.
    """
    again = [symbol for symbol in silent if now - feed.blamed_at.get(symbol, float("-inf")) < BLAME_SECONDS]
    for symbol in again:
        silence = f"silent for {now - connection.last_heard[symbol]:.0f} s"
        give_up(feed, connection, symbol, State.SILENT, f"{silence}, on a new connection too")
    if again:
        unsubscribe(feed, connection, again)
    feed.blamed_at.update(dict.fromkeys(silent, now))
    fresh = [symbol for symbol in silent if symbol not in again]
    if fresh:
        connection.hang_up(f"silent for {now - connection.last_heard[fresh[0]]:.0f} s: {', '.join(fresh)}")


def _subscribe_anew(feed: Feed, connection: Connection, silent: Sequence[str], now: float) -> None:
    """Silence is only a suspicion here: subscribe *silent* symbols anew, together and ever more rarely."""
    patience = feed.limits.symbol_silence or 0.0
    due = [
        symbol for symbol in silent if now - connection.last_heard[symbol] >= connection.patience.get(symbol, patience)
    ]
    if not due or now - connection.remedied_at < REMEDY_SECONDS or not can_spare(feed, connection, now):
        return
    connection.remedied_at = now
    log.warning("%s/%d: silent, subscribing anew: %s", feed.venue.name, connection.number, ", ".join(due))
    for symbol in due:
        connection.patience[symbol] = min(2 * connection.patience.get(symbol, patience), RAREST_REMEDY)
        connection.last_heard[symbol] = now
    unsubscribe(feed, connection, due)
    ask(feed, connection, due)
