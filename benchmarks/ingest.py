"""CPU time per message, from the socket to the verdict, beside other collectors in the same run.

One made-up exchange (this process) pushes OKX candles of 300 symbols over the loopback to one client after another,
each in a process of its own that measures its own CPU time between two marks in the stream::

    this process                              the client's process
    accept, answer every subscription    ←    connect, subscribe
    a warm-up, silence, a mark           →    begun: remember the CPU time
    messages for some seconds, a mark    →    done: say what they cost

first paced (one message a millisecond, each in a write of its own), then saturated (as fast as the client reads).
A round is one turn of every client; ratios are taken within a round, and medians over the rounds.

    python benchmarks/ingest.py
    python benchmarks/ingest.py --rounds 1 --seconds 3 --only ours,cryptofeed --json

README.md, beside this file, says how to read the table. Unix only.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import importlib.metadata
import json
import platform
import random
import resource
import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import attrs

SYMBOLS = tuple(f"C{number:03}-USDT" for number in range(300))
RATE = 1_000
"""Messages a second, paced."""
MINUTE_ROUNDS = 20
"""Pushes of a symbol in one of its minutes, the last of them closed.

A real minute has up to sixty: one message in twenty is a verdict here, which errs against whoever does more with it.
"""
OUR_MINUTES_BEGIN = (int(time.time()) // 60 - 1440) * 60_000
"""The first candle's open time: a day ago, because saturated clients see an hour in some seconds."""
BEGIN_PRICE, END_PRICE, LEAST_PRICE = 1, 2, 10
"""The open of a mark, of the two kinds; every other candle opens at *LEAST_PRICE* or above."""
MARKED = (SYMBOLS[0], SYMBOLS[-1])
"""A client with two connections has one of them on each, so that its marks are the last messages of both."""
PATIENCE = 60.0
"""Seconds to wait for a client before the run is given up."""


# --- the stream -------------------------------------------------------------------------------------------

_NO_TIME = "0" * 13


def text_frame(text: str) -> bytes:
    """*text* as an unmasked WebSocket frame."""
    body = text.encode()
    head = bytes([0x81, len(body)]) if len(body) < 126 else b"\x81\x7e" + len(body).to_bytes(2, "big")
    return head + body


def candle_frame(symbol: str, price: float, confirm: str) -> bytes:
    """One push of the channel candle1m, its open time left blank (:data:`_NO_TIME`)."""
    row = [_NO_TIME, f"{price}", f"{price * 1.01:.4f}", f"{price * 0.99:.4f}", f"{price * 1.001:.4f}"]
    row += ["812.40518", f"{price * 812.40518:.6f}", f"{price * 812.40518:.6f}", confirm]
    push = {"arg": {"channel": "candle1m", "instId": symbol}, "data": [row]}
    return text_frame(json.dumps(push, separators=(",", ":")))


FORMING = {symbol: candle_frame(symbol, 20.25 + 7.5 * n, "0") for n, symbol in enumerate(SYMBOLS)}
CLOSED = {symbol: candle_frame(symbol, 20.25 + 7.5 * n, "1") for n, symbol in enumerate(SYMBOLS)}


@attrs.define
class Stream:
    """What the market says, round after round: every symbol once."""

    _round: int = 0
    closed: int = 0
    """Closed candles so far, marks not counted."""

    def next_round(self) -> tuple[dict[str, bytes], bytes]:
        """A frame for every symbol, and the open time that belongs where they are blank."""
        minute, turn = divmod(self._round, MINUTE_ROUNDS)
        self._round += 1
        closing = turn == MINUTE_ROUNDS - 1
        self.closed += len(SYMBOLS) if closing else 0
        return (CLOSED if closing else FORMING), self._time(minute)

    def mark(self, price: int) -> dict[str, bytes]:
        """A closed candle for each marked symbol that opens at *price*; begins a new minute."""
        minute = -(-self._round // MINUTE_ROUNDS)
        self._round = (minute + 1) * MINUTE_ROUNDS
        stamp = self._time(minute)
        return {symbol: candle_frame(symbol, price, "1").replace(_NO_TIME.encode(), stamp) for symbol in MARKED}

    def _time(self, minute: int) -> bytes:
        return str(OUR_MINUTES_BEGIN + minute * 60_000).encode()


# --- the exchange -----------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Line:
    """One connection of the client: what it subscribed to, and a lock, because acks and pongs are sent too."""

    connection: socket.socket
    symbols: list[str] = attrs.field(factory=list)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def send(self, data: bytes) -> None:
        """Send, waiting for the client to read."""
        with self._lock:
            self.connection.sendall(data)

    def serve(self, subscribed: Callable[[], None]) -> None:
        """Shake hands and answer what the client says until it goes."""
        with self.connection, self.connection.makefile("rb") as said:
            try:
                self.send(_accepted(iter(said.readline, b"\r\n")))
                while (message := _read_frame(said.read)) is not None:
                    self._answer(*message)
                    subscribed()
            except OSError:
                pass  # the client was stopped, or has gone

    def _answer(self, opcode: int, body: bytes) -> None:
        if opcode == 0x9:
            self.send(bytes([0x8A, len(body)]) + body)
        elif body == b"ping":
            self.send(text_frame("pong"))
        elif opcode == 0x1:
            for arg in json.loads(body)["args"]:
                ack = {"event": "subscribe", "arg": arg, "connId": "a4d3ae55"}
                self.send(text_frame(json.dumps(ack, separators=(",", ":"))))
                self.symbols.append(arg["instId"])


def _accepted(head: Iterator[bytes]) -> bytes:
    key = next(line.split(b":", 1)[1].strip() for line in head if line.lower().startswith(b"sec-websocket-key"))
    for _ in head:
        pass
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return upgrade + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"


def _read_frame(read: Callable[[int], bytes]) -> tuple[int, bytes] | None:
    """The next frame's opcode and body; ``None`` at the end. Clients mask, and none of these sends fragments."""
    head = read(2)
    if len(head) < 2 or head[0] & 0xF == 0x8:
        return None
    length = head[1] & 0x7F
    if length >= 126:
        length = int.from_bytes(read(2 if length == 126 else 8), "big")
    mask, body = read(4), read(length)
    return head[0] & 0xF, bytes(byte ^ mask[place % 4] for place, byte in enumerate(body))


class Exchange:
    """Listens for one client at a time and pushes to it; ``with`` it, and everything is closed."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lines: list[Line] = []
        self._complete = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for line in self._lines:
            line.connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = Line(connection)
            self._lines.append(line)
            threading.Thread(target=line.serve, args=[self._count], daemon=True).start()

    def _count(self) -> None:
        if sum(len(line.symbols) for line in self._lines) >= len(SYMBOLS):
            self._complete.set()

    def wait_subscribed(self, child: subprocess.Popen[bytes]) -> None:
        """Wait until *child* has subscribed to every symbol."""
        deadline = time.monotonic() + PATIENCE
        while not self._complete.wait(0.1):
            if child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the client did not subscribe to every symbol")

    def push_mark(self, frames: dict[str, bytes]) -> None:
        """Push marks."""
        for line in self._lines:
            for symbol in MARKED:
                if symbol in line.symbols:
                    line.send(frames[symbol])

    def push_paced(self, stream: Stream, seconds: float) -> int:
        """Push one message every millisecond, each by itself; how many they were."""
        home = {symbol: line for line in self._lines for symbol in line.symbols}
        sent, begin = 0, time.monotonic()
        while sent < seconds * RATE:
            frames, stamp = stream.next_round()
            for symbol in SYMBOLS:
                wait = begin + sent / RATE - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                home[symbol].send(frames[symbol].replace(_NO_TIME.encode(), stamp))
                sent += 1
        return sent

    def push_saturated(self, stream: Stream, seconds: float) -> int:
        """Push as fast as the client reads; how many messages they were."""
        joined: dict[tuple[int, bool], bytes] = {}
        for number, line in enumerate(self._lines):
            joined[number, False] = b"".join(FORMING[symbol] for symbol in line.symbols)
            joined[number, True] = b"".join(CLOSED[symbol] for symbol in line.symbols)
        sent, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            frames, stamp = stream.next_round()
            for number, line in enumerate(self._lines):
                line.send(joined[number, frames is CLOSED].replace(_NO_TIME.encode(), stamp))
            sent += len(SYMBOLS)
        return sent


# --- the clients ------------------------------------------------------------------------------------------


@attrs.define
class Meter:
    """Counts what a client was given between two marks, and says what it cost."""

    delivered: int = 0
    _begun_at: float | None = None
    _marked: set[tuple[str, int]] = attrs.field(factory=set)

    def mark(self, symbol: str, price: float) -> None:
        """A mark has arrived; the second one of a kind begins or ends a measurement."""
        self.delivered -= 1
        self._marked.add((symbol, int(price)))
        if len({name for name, kind in self._marked if kind == price}) < len(MARKED):
            return
        self._marked.clear()
        if price == BEGIN_PRICE and self._begun_at is None:
            self.delivered = 0
            print("begun", flush=True)
            self._begun_at = time.process_time()
        elif price == END_PRICE and self._begun_at is not None:
            cpu, self._begun_at = time.process_time() - self._begun_at, None
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
            print(json.dumps({"cpu": cpu, "delivered": self.delivered, "rss": peak}), flush=True)


def run_ours(url: str, seconds: float, meter: Meter) -> None:
    """The service's own path: network, feed, state, assemblers; verdicts into the channel, where a task counts them."""
    import trio

    from trio_candles.candles.model import MINUTE, Candle, Millis, Series, floor_to
    from trio_candles.clock import ServiceClock, WallTime
    from trio_candles.collector.feed import run_feed
    from trio_candles.collector.service import BATCHES_QUEUED
    from trio_candles.collector.status import VenueBoard
    from trio_candles.collector.venue_state import open_venue_state
    from trio_candles.collector.vouching import Vouching
    from trio_candles.collector.writer import Batch
    from trio_candles.network.streams import paced_ticks
    from trio_candles.network.websocket import Network, dial_tcp
    from trio_candles.venues.okx import VENUE

    async def collect() -> None:
        wall = WallTime()
        owed = (Millis(OUR_MINUTES_BEGIN), floor_to(wall.now(), MINUTE))
        series = [Series("okx", symbol) for symbol in SYMBOLS]
        state = open_venue_state(VenueBoard("okx"), VENUE.proof, series, Vouching(wall, vouched=True))
        state.begin(dict.fromkeys(series, owed))
        # Reads are quicker around the turn of a minute. Only for them, a measurement lasts a minute: so it holds
        # one turn, as every minute does, whenever it begins.
        network = Network(dial_tcp(paced_ticks(lambda: int(wall.now() * 60 / seconds))))
        send, receive = trio.open_memory_channel[Batch](BATCHES_QUEUED)
        last_words: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                run_feed, VENUE.feed, url, state, network, send, random.Random(0), last_words.append, None
            )
            async for batch in receive:
                for verdict in batch:
                    if isinstance(verdict, Candle):
                        meter.delivered += 1
                        if verdict.open < LEAST_PRICE:
                            meter.mark(verdict.series.symbol, verdict.open)

    trio.run(collect, clock=ServiceClock(1.0))


def run_bare(url: str, seconds: float, meter: Meter) -> None:
    """trio-websocket alone, a frame a read: counts messages, decodes none but the marks."""
    import trio
    import trio_websocket

    begin, end = (f'","{price}",' for price in (BEGIN_PRICE, END_PRICE))

    async def collect() -> None:
        async with trio_websocket.open_websocket_url(url) as connection:
            args = [{"channel": "candle1m", "instId": symbol} for symbol in SYMBOLS]
            await connection.send_message(json.dumps({"op": "subscribe", "args": args}))
            while True:
                text = await connection.get_message()
                meter.delivered += 1
                if begin in text or end in text:
                    push = json.loads(text)
                    meter.mark(push["arg"]["instId"], int(push["data"][0][1]))

    trio.run(collect)


def run_cryptofeed(url: str, seconds: float, meter: Meter) -> None:
    """cryptofeed's OKX candles into a callback; it gives every push of a minute, closed or not."""
    from cryptofeed import FeedHandler
    from cryptofeed.connection import WebsocketEndpoint
    from cryptofeed.defines import CANDLES
    from cryptofeed.exchanges import OKX
    from cryptofeed.symbols import Symbols

    class LoopbackOKX(OKX):
        websocket_endpoints = (WebsocketEndpoint(url.replace("ws:", "wss:", 1), options={"compression": None}),)

        def connect(self) -> list[tuple]:
            connections = super().connect()
            for connection, *_ in connections:
                connection.address = url  # its constructor insists on TLS
            return connections

    async def hear(candle: object, received: float) -> None:
        meter.delivered += 1
        if candle.open < LEAST_PRICE:
            meter.mark(candle.symbol, candle.open)

    names = {symbol: symbol for symbol in SYMBOLS}
    Symbols.set(OKX.id, names, {"instrument_type": dict.fromkeys(SYMBOLS, "spot"), "tick_size": {}})
    handler = FeedHandler(config={"log": {"disabled": True}, "uvloop": True})
    handler.add_feed(LoopbackOKX(symbols=list(SYMBOLS), channels=[CANDLES], callbacks={CANDLES: hear}))
    asyncio.set_event_loop(asyncio.new_event_loop())  # uvloop's; it no longer makes one by itself
    handler.run()


def run_ccxt(url: str, seconds: float, meter: Meter) -> None:
    """ccxt.pro, a task for every symbol that watches its candles; quick pushes are given together, or not at all."""
    import ccxt.pro

    async def watch(exchange: ccxt.pro.okx, symbol: str) -> None:
        while True:
            candles = await exchange.watch_ohlcv(symbol, "1m")
            meter.delivered += 1
            if candles[-1][1] < LEAST_PRICE:
                meter.mark(symbol.replace("/", "-"), candles[-1][1])

    async def collect() -> None:
        exchange = ccxt.pro.okx({"enableRateLimit": False})
        exchange.urls["api"]["ws"] = url
        exchange.set_markets([_ccxt_market(symbol) for symbol in SYMBOLS])
        try:
            await asyncio.gather(*[watch(exchange, symbol) for symbol in exchange.symbols])
        finally:
            await exchange.close()

    asyncio.run(collect())


def _ccxt_market(symbol: str) -> dict[str, object]:
    base, quote = symbol.split("-")
    names = {"id": symbol, "symbol": f"{base}/{quote}", "base": base, "quote": quote, "baseId": base, "quoteId": quote}
    return {**names, "type": "spot", "spot": True, "active": True}


@attrs.frozen
class Client:
    """Who is measured: how it runs, whose installed version counts, and whether it gives all it was sent."""

    label: str
    run: Callable[[str, float, Meter], None]
    packages: tuple[str, ...]
    """The first must be there for the client to be measured; the others are named if they are."""
    gives: str
    """``messages``, ``closed`` candles or ``some``: what must arrive, lest the price be that of losing data."""


CLIENTS = {
    "ours": Client("trio_candles", run_ours, ("trio-websocket", "trio", "wsproto", "msgspec"), "closed"),
    "cryptofeed": Client("cryptofeed", run_cryptofeed, ("cryptofeed", "websockets", "uvloop"), "messages"),
    "ccxt": Client("ccxt.pro", run_ccxt, ("ccxt", "aiohttp"), "some"),
    "bare": Client("trio-websocket alone", run_bare, ("trio-websocket",), "messages"),
}


# --- measuring --------------------------------------------------------------------------------------------


@attrs.frozen
class Cost:
    """What one client cost in one round."""

    paced: float
    """CPU µs a message."""
    saturated: float
    rss: float
    """MB at the peak."""


def measure(name: str, seconds: float) -> Cost:
    """Run the client *name* once, in a process of its own."""
    command = [sys.executable, __file__, "--client", name, "--seconds", str(seconds), "--port"]
    with Exchange() as exchange:
        child = subprocess.Popen([*command, str(exchange.port)], stdout=subprocess.PIPE)
        try:
            exchange.wait_subscribed(child)
            stream = Stream()
            paced = _phase(name, exchange, stream, child, exchange.push_paced, seconds)
            saturated = _phase(name, exchange, stream, child, exchange.push_saturated, seconds)
        finally:
            child.kill()
            child.communicate()
    return Cost(paced["micros"], saturated["micros"], saturated["rss"])


def _phase(
    name: str,
    exchange: Exchange,
    stream: Stream,
    child: subprocess.Popen[bytes],
    push: Callable[[Stream, float], int],
    seconds: float,
) -> dict[str, float]:
    """One measurement: warm-up, mark, messages, mark."""
    push(stream, 0.5)
    _mark(exchange, stream, child, BEGIN_PRICE)
    closed_before = stream.closed
    sent = push(stream, seconds)
    closed = stream.closed - closed_before
    report = json.loads(_mark(exchange, stream, child, END_PRICE))
    due = {"messages": sent, "closed": closed, "some": report["delivered"]}[CLIENTS[name].gives]
    if report["delivered"] != due:
        raise SystemExit(f"{name} was to give {due} and gave {report['delivered']}")
    return {"micros": report["cpu"] / sent * 1e6, "rss": report["rss"]}


def _mark(exchange: Exchange, stream: Stream, child: subprocess.Popen[bytes], price: int) -> bytes:
    """Push a mark until the client answers; a client that joins quick pushes may need more than one."""
    assert child.stdout is not None
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(0.5)  # so that everything before has been read
        exchange.push_mark(stream.mark(price))
        if select.select([child.stdout], [], [], 2.0)[0]:
            line = child.stdout.readline()
            if not line:
                break
            return line
    raise SystemExit("the client has gone, or says nothing")


def version(package: str) -> str | None:
    """The installed version of *package*."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def middle(values: Sequence[float]) -> float | None:
    """The median; ``None`` of nothing."""
    return statistics.median(values) if values else None


def summary(name: str, rounds: Sequence[dict[str, Cost]]) -> dict[str, object]:
    """One client's row: medians over the rounds, and of the ratios within each."""
    both = [(costs[name], costs["cryptofeed"]) for costs in rounds if name in costs and "cryptofeed" in costs]
    costs = [costs[name] for costs in rounds if name in costs]
    client = CLIENTS[name]
    return {
        "client": client.label,
        "installed": version(client.packages[0]) is not None,
        "saturated_us": middle([cost.saturated for cost in costs]),
        "paced_us": middle([cost.paced for cost in costs]),
        "saturated_ratio": middle([mine.saturated / theirs.saturated for mine, theirs in both]),
        "paced_ratio": middle([mine.paced / theirs.paced for mine, theirs in both]),
        "rss_mb": middle([cost.rss for cost in costs]),
        "versions": {package: version(package) for package in client.packages},
        "rounds": [attrs.asdict(cost) for cost in costs],
    }


def table(rows: Sequence[dict[str, object]]) -> str:
    """The rows for people."""
    columns = {"saturated_us": 10, "paced_us": 8, "saturated_ratio": 10, "paced_ratio": 10, "rss_mb": 7}
    over = f"{'':<22}{'CPU µs per message':>18}{'x cryptofeed':>20}"
    titles = ("saturated", "paced", "saturated", "paced", "RSS MB")
    titled = "".join(f"{title:>{width}}" for title, width in zip(titles, columns.values(), strict=True))
    lines = [over, f"{'client':<22}{titled}"]
    for row in rows:
        versions = ", ".join(f"{package} {number}" for package, number in row["versions"].items() if number is not None)
        if row["installed"]:
            numbers = "".join(f"{_number(row[key], key):>{width}}" for key, width in columns.items())
            lines.append(f"{row['client']:<22}{numbers}   {versions}")
        else:
            lines.append(f"{row['client']:<22}  missing: not installed")
    return "\n".join(lines)


def _number(value: float | None, key: str) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if key.endswith("ratio") else f"{value:.0f}" if key == "rss_mb" else f"{value:.1f}"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of every client (default: 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each of the two measurements (default: 4)")
    parser.add_argument("--only", default=",".join(CLIENTS), help=f"some of {','.join(CLIENTS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of the table")
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client is not None:
        path = "" if options.client == "ccxt" else "/ws/v5/business"  # ccxt.pro appends the path itself
        CLIENTS[options.client].run(f"ws://127.0.0.1:{options.port}{path}", options.seconds, Meter())
        return
    names = options.only.split(",")
    unknown = set(names) - set(CLIENTS)
    if unknown:
        parser.error(f"unknown client: {', '.join(sorted(unknown))}")
    rounds: list[dict[str, Cost]] = []
    for turn in range(options.rounds):
        rounds.append({})
        for name in names:
            if version(CLIENTS[name].packages[0]) is not None:
                print(f"round {turn + 1} of {options.rounds}: {CLIENTS[name].label}", file=sys.stderr)
                rounds[-1][name] = measure(name, options.seconds)
    rows = [summary(name, rounds) for name in names]
    setup = {"symbols": len(SYMBOLS), "paced_per_second": RATE, "rounds": options.rounds, "seconds": options.seconds}
    machine = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    if options.json:
        print(json.dumps({"setup": setup, "machine": machine, "clients": rows}, indent=2))
    else:
        print(table(rows))
        print(", ".join(f"{key} {value}" for key, value in {**setup, **machine}.items()))


if __name__ == "__main__":
    main()
