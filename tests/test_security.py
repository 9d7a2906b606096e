"""What somebody hostile could try, a venue or whoever is in between: certificates, bodies, texts, names, ports.

Elsewhere: what a configuration may say, YAML's own traps (``test_config``); frames and handshakes (``test_network``);
nested and malformed messages of a feed (``test_venues``); links in the data directory (``test_audit``).
"""

from __future__ import annotations

import datetime
import gzip
import json
import logging
import os
import random
import ssl
import subprocess
import sys
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
import trio_websocket
import trustme
from hypothesis import given
from hypothesis import strategies as st
from peers import accept, network_with, refused_with
from processes import AUDIT, CONFIG, RUN, Running
from screens import Screen
from world import NOON, config_of

from trio_candles.candles.model import canonical_symbol
from trio_candles.clock import SimulatedTime
from trio_candles.collector.service import open_service
from trio_candles.command.console import open_console
from trio_candles.network.rest import ANSWER_SECONDS, LARGEST_BODY, Rest, open_rest
from trio_candles.network.websocket import Network, dial_tcp
from trio_candles.store.store import open_store
from trio_candles.threads import inline
from trio_candles.venues.history import Answer, Penalty, Rate, Refusal, Request, Unavailable
from trio_candles.venues.protocol import Misunderstood
from trio_candles.venues.registry import VENUES

ASKED = Request("/x", {"a": "1"}, "all")
RATES = {"all": Rate(1000.0, 100, empty_at_start=False)}
PENALTY = Penalty(Rate(1.0, 1), 30.0)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


async def no_dial(url: str) -> trio.abc.Stream:
    raise AssertionError(f"dialled {url}")


@asynccontextmanager
async def asking(transport: httpx.AsyncBaseTransport | None, url: str = "http://venue.test") -> AsyncIterator[Rest]:
    async with open_rest(Network(no_dial, transport=transport), {None: url}, RATES, PENALTY) as rest:
        yield rest


# --- TLS --------------------------------------------------------------------------------------------------

YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
CERTIFICATES = {
    "self-signed": ("127.0.0.1", False, None, "CERTIFICATE_VERIFY_FAILED"),
    "another host's": ("elsewhere.test", True, None, "CERTIFICATE_VERIFY_FAILED"),
    "expired": ("127.0.0.1", True, YESTERDAY, "certificate has expired"),
    "good": ("127.0.0.1", True, None, None),
}


@asynccontextmanager
async def tls_server(which: str) -> AsyncIterator[tuple[int, ssl.SSLContext, str | None]]:
    """A server that answers everything with HTTP 200; its port, what a client trusts, what it should say."""
    host, trusted, until, said = CERTIFICATES[which]
    authority, theirs, ours = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), None
    authority.issue_cert(host, not_after=until).configure_cert(theirs)
    ours = ssl.create_default_context()
    if trusted:
        authority.configure_trust(ours)

    async def serve(tcp: trio.SocketStream) -> None:
        stream = trio.SSLStream(tcp, theirs, server_side=True)
        try:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(tcp)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1], ours, said
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("which", CERTIFICATES)
async def test_rest_believes_nobody_without_a_valid_certificate_for_that_host(which):
    async with tls_server(which) as (port, context, said):
        transport = httpx.AsyncHTTPTransport(verify=context)
        async with asking(transport, f"https://127.0.0.1:{port}") as rest:
            if said is None:
                assert (await rest.ask(ASKED)).body == b"ok"
            else:
                with pytest.raises(Unavailable, match=said):
                    await rest.ask(ASKED)


async def test_rest_as_it_is_shipped_trusts_public_authorities_only():
    async with tls_server("good") as (port, _, _), asking(None, f"https://127.0.0.1:{port}") as rest:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await rest.ask(ASKED)


@pytest.mark.parametrize("which", [which for which in CERTIFICATES if which != "good"])
async def test_a_feed_believes_nobody_without_a_valid_certificate_for_that_host(which):
    async with tls_server(which) as (port, context, said):
        error = await refused_with(Network(dial_tcp(lambda: 0.0, context)), f"wss://127.0.0.1:{port}/")
    assert said in error


# --- REST bodies ------------------------------------------------------------------------------------------


class Flood(httpx.AsyncByteStream):
    """A body of *chunk* again and again, a *pause* before each; counts what was taken of it."""

    def __init__(self, chunk: bytes, pause: float = 0.0) -> None:
        self.chunk, self.pause, self.taken = chunk, pause, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await trio.sleep(self.pause)
            self.taken += len(self.chunk)
            yield self.chunk


class Answering(httpx.AsyncBaseTransport):
    """Gives the same answer to every request, and keeps the requests."""

    def __init__(self, status: int = 200, headers: dict[str, str] | None = None, body: object = b"") -> None:
        self.status, self.headers, self.body = status, headers or {}, body
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self.body, bytes):
            return httpx.Response(self.status, headers=self.headers, content=self.body)
        return httpx.Response(self.status, headers=self.headers, stream=self.body)


# httpx leaves the generators within its own to the collector when a body is not read to its end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_endless_body_is_left_at_its_bound(autojump_clock):
    flood = Flood(bytes(100_000))
    async with asking(Answering(body=flood)) as rest:
        with pytest.raises(Unavailable, match="larger than"):
            await rest.ask(ASKED)
    assert flood.taken <= LARGEST_BODY + len(flood.chunk)


async def test_a_slow_drip_ends_at_the_deadline_of_the_whole_answer(autojump_clock):
    async with asking(Answering(body=Flood(b"[", pause=5.0))) as rest:
        began = trio.current_time()
        with pytest.raises(Unavailable, match="no answer"):
            await rest.ask(ASKED)
    assert trio.current_time() - began == ANSWER_SECONDS


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "br", "zstd", "gzip, identity"])
async def test_a_compressed_body_is_not_even_read(autojump_clock, coding):
    """The bomb of 200 MB in 194 KB: it was not asked for, so it is no answer."""
    bomb = Flood(gzip.compress(bytes(1_000_000)))
    transport = Answering(headers={"content-encoding": coding}, body=bomb)
    async with asking(transport) as rest:
        with pytest.raises(Unavailable, match="compressed"):
            await rest.ask(ASKED)
    assert bomb.taken == 0
    assert transport.requests[0].headers["accept-encoding"] == "identity"


async def test_a_body_that_is_secretly_compressed_stays_as_it_is(autojump_clock):
    content = gzip.compress(bytes(1_000_000))
    async with asking(Answering(body=content)) as rest:
        assert (await rest.ask(ASKED)).body == content


async def test_endless_headers_are_refused():
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\n")
        try:
            while True:
                await stream.send_all(b"X-Header: " + b"x" * 65_536 + b"\r\n")
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        async with asking(None, f"http://127.0.0.1:{listener.socket.getsockname()[1]}") as rest:
            with pytest.raises(Unavailable, match="RemoteProtocolError"):
                await rest.ask(ASKED)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirection_is_not_followed(autojump_clock, status):
    transport = Answering(status, {"location": "http://127.0.0.1:1/steal"})
    async with asking(transport) as rest:
        answer = await rest.ask(ASKED)
    assert [str(request.url) for request in transport.requests] == ["http://venue.test/x?a=1"]
    for venue in VENUES.values():  # and it is no answer to anything
        with pytest.raises((Misunderstood, Refusal)):
            venue.history.read_time(answer)


@pytest.mark.parametrize("name", VENUES)
@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"data":' * 100_000, b'{"error":[],"result":' + b"[" * 200_000])
def test_a_body_nested_without_end_is_misunderstood(name, body):
    with pytest.raises((Misunderstood, Refusal)):
        VENUES[name].history.read_time(Answer(200, body))


async def test_no_proxy_and_no_password_file_of_the_environment_is_used(tmp_path):
    """A process, because an environment is one's own. The proxy would be asked first; the netrc would add a header."""
    heard: dict[str, bytes] = {"venue": b"", "proxy": b""}

    async def serve(name: str, stream: trio.SocketStream) -> None:
        heard[name] += await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    (tmp_path / "netrc").write_text("machine localhost login me password secret\n")
    child = (
        "import sys, trio, test_security as t\n"
        "async def ask():\n"
        "    async with t.asking(None, sys.argv[1]) as rest:\n"
        "        print((await rest.ask(t.ASKED)).body)\n"
        "trio.run(ask)\n"
    )
    async with trio.open_nursery() as nursery:
        ports = {}
        for name in heard:
            (listener,) = await nursery.start(partial(trio.serve_tcp, partial(serve, name), 0, host="127.0.0.1"))
            ports[name] = listener.socket.getsockname()[1]
        proxy = f"http://127.0.0.1:{ports['proxy']}"
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        path = os.pathsep.join(filter(None, sys.path))
        done = await trio.run_process(
            [sys.executable, "-c", child, f"http://localhost:{ports['venue']}"],
            env={**dict.fromkeys(names, proxy), "NETRC": str(tmp_path / "netrc"), "PYTHONPATH": path, **_system()},
            capture_stdout=True,
        )
        nursery.cancel_scope.cancel()
    assert done.stdout.strip() == b"b'ok'"
    assert heard["proxy"] == b""
    assert b"authorization" not in heard["venue"].lower()


def _system() -> dict[str, str]:
    import os

    return {name: os.environ[name] for name in ("SYSTEMROOT", "PATH", "TEMP") if name in os.environ}


# --- frames -----------------------------------------------------------------------------------------------


async def test_no_compression_is_offered_and_a_compressed_frame_ends_the_connection(autojump_clock, nursery):
    """Nothing is ever decompressed, so nothing can explode."""
    heads: list[bytes] = []

    class Peeking(trio.abc.Stream):
        def __init__(self, below: trio.abc.Stream) -> None:
            self.below = below

        async def receive_some(self, max_bytes=None):
            data = await self.below.receive_some(max_bytes)
            heads.append(bytes(data))
            return data

        async def send_all(self, data):
            await self.below.send_all(data)

        async def wait_send_all_might_not_block(self):
            await self.below.wait_send_all_might_not_block()

        async def aclose(self):
            await self.below.aclose()

    async def peer(stream: trio.abc.Stream) -> None:
        async def talk(websocket: trio_websocket.WebSocketConnection) -> None:
            await stream.send_all(b"\xc1\x05\xf2\x48\x2d\x2e\x01")  # RSV1: "compressed"
            await trio.sleep(5)

        await accept(Peeking(stream), talk)

    network = network_with(nursery, peer)

    async def listen() -> None:
        async with network.connect("ws://venue.test/feed") as socket:
            await socket.receive()

    with pytest.raises(ExceptionGroup):
        await listen()
    assert b"sec-websocket-extensions" not in b"".join(heads).lower()
    nursery.cancel_scope.cancel()


# --- what a venue says --------------------------------------------------------------------------------------

ORDERS = "\x1b[2J\x1b]0;owned\x07\r\n2026-01-10 12:00:00.000 ERROR forged\u202e\u2066\x9b31m"
FORBIDDEN = ("\x1b", "\x07", "\r", "\u202e", "\u2066", "\x9b")


def hostile_frames() -> list[str]:
    """What OKX could send, were it somebody else."""
    row = ["1768046340000", "1", "1", "1", "1", "1", "1", "1", "1"]
    told = {"event": "error", "code": "1" + ORDERS, "msg": ORDERS, "connId": "a"}
    row_of = {"arg": {"channel": "candle1m", "instId": "../../../evil" + ORDERS}, "data": [row]}
    bad = {"arg": {"channel": "candle1m", "instId": "BTC-USDT"}, "data": [[ORDERS, *row[1:]]]}
    odd = {"event": ORDERS, "arg": {"channel": ORDERS, "instId": "BTC-USDT"}}
    refused = {"event": "error", "code": "60018", "msg": f"channel:candle1m,instId:BTC-USDT doesn't exist {ORDERS}"}
    raw = ORDERS, '{"event": "' + ORDERS + '"}', '{"data": ' * 5000
    return [json.dumps(one, ensure_ascii=False) for one in (told, row_of, bad, odd, refused)] + list(raw)


class Screens:
    """A console's two streams, kept."""

    def __init__(self) -> None:
        self.out, self.err = Screen(), Screen()


async def test_nothing_that_a_venue_says_reaches_a_terminal_the_log_or_a_path(autojump_clock, tmp_path):
    async def talk(websocket: trio_websocket.WebSocketConnection) -> None:
        for text in hostile_frames():
            await websocket.send_message(text)
        await trio.sleep(40)

    page = json.dumps({"code": "51000" + ORDERS, "msg": ORDERS, "data": []}, ensure_ascii=False)
    screens, time = Screens(), SimulatedTime(NOON)
    config = config_of(tmp_path / "data", {"okx": ("BTC-USDT",)}, 0.02, fill=True)
    async with trio.open_nursery() as peers:

        async def dial(url: str) -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            peers.start_soon(serve, theirs)
            return ours

        async def serve(stream: trio.abc.Stream) -> None:
            try:
                await accept(stream, talk)
            except* (trio_websocket.ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        network = Network(dial, transport=Answering(body=page.encode()))
        with (
            open_console(tmp_path / "logs", logging.WARNING, lambda wall: NOON, out=screens.out, err=screens.err),
            open_store(config.data_dir) as store,
        ):
            async with open_service(config, network, store, time, offload=inline, chance=random.Random(1)):
                await trio.sleep(100)
        peers.cancel_scope.cancel()
    log = (tmp_path / "logs" / "collector.log").read_text(encoding="utf-8")
    for said in (log, screens.err.shown(), screens.out.shown()):
        assert not [one for one in FORBIDDEN if one in said]
        assert not [line for line in said.splitlines() if line.startswith("2026-01-10 12:00:00.000 ERROR forged")]
    assert "forged" in log  # it was said, and can be read
    assert sorted(path.name for path in tmp_path.rglob("*") if "evil" in path.name) == []
    for options in ([], ["--json"]):
        command = [*AUDIT, "--data-dir", str(config.data_dir), *options]
        done = await trio.run_process(command, cwd=tmp_path, capture_stdout=True, capture_stderr=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        said = (done.stdout + done.stderr).decode()
        assert not [one for one in FORBIDDEN if one in said]


def test_a_traceback_gives_no_orders_either(tmp_path):
    """An error's words may be a venue's, and its notes."""
    screens = Screens()
    with open_console(tmp_path, logging.WARNING, lambda wall: NOON, out=screens.out, err=screens.err):
        try:
            error = ZeroDivisionError(ORDERS)
            error.add_note(ORDERS)
            raise error
        except ZeroDivisionError as caught:
            logging.getLogger("trio_candles.test").critical("failed", exc_info=caught)
    for said in (screens.err.shown(), (tmp_path / "collector.log").read_text(encoding="utf-8")):
        assert "Traceback (most recent call last)" in said
        assert "ZeroDivisionError: \\x1b[2J" in said
        assert not [one for one in FORBIDDEN if one in said]
        assert not [line for line in said.splitlines() if line.startswith("2026-01-10 12:00:00.000 ERROR forged")]


# --- names --------------------------------------------------------------------------------------------------

DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789¹²³"
}
PIECES = st.one_of(
    st.sampled_from(
        [*sorted(DEVICES), "..", ".", "/", "\\", "-", ":", "BTC", "usd", "ß", "\u0131", "\u212a", "\0", "\n", " "]
    ),
    st.text(max_size=3),
)
NAMES = st.lists(PIECES, max_size=6).map("".join)


@given(NAMES)
def test_a_folder_made_of_a_symbol_is_one_folder_and_no_device_on_any_system(symbol):
    """Windows takes a device's name with an extension or a space, too; ``CON-USD`` is a name like any other."""
    try:
        folder = canonical_symbol(symbol)
    except ValueError:
        return
    assert folder.isascii()
    assert folder.replace("-", "").isalnum()
    assert folder == folder.upper() == unicodedata.normalize("NFKC", folder)
    assert folder.split(".")[0].rstrip(" ") not in DEVICES


@given(NAMES, NAMES)
def test_two_symbols_share_a_folder_only_if_they_differ_by_the_separator(one, other):
    try:
        folders = {canonical_symbol(one).casefold(), canonical_symbol(other).casefold()}
    except ValueError:
        return
    assert (len(folders) == 1) == (one.replace("/", "-") == other.replace("/", "-"))


@pytest.mark.parametrize("device", sorted(DEVICES))
def test_a_device_is_no_symbol_and_a_currency_that_is_called_like_one_is(device):
    for symbol in (device, f"{device}.USD", f"{device} ", f"{device}:"):
        with pytest.raises(ValueError, match="no symbol"):
            canonical_symbol(symbol)
    if device.isascii() and device.isalnum():
        assert canonical_symbol(f"{device}-USD") == f"{device}-USD"


# --- ports ------------------------------------------------------------------------------------------------


def listening(pid: int) -> dict[str, list[str]]:
    """The addresses on which a process listens, by family; UDP sockets count where they are bound."""
    inodes = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(handle.readlink().name.removeprefix("socket:[").removesuffix("]"))
        except OSError:
            continue
    found: dict[str, list[str]] = {}
    for family, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] == state:
                found.setdefault(family, []).append(fields[1].partition(":")[0])
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[6] in inodes and int(fields[3], 16) & 0x10000:
            found.setdefault("unix", []).append(fields[-1])
    return found


@LINUX
def test_a_collector_listens_on_no_port(tmp_path):
    closed = "websocket_url: 'ws://127.0.0.1:9/', rest_url: 'http://127.0.0.1:9'"
    (tmp_path / "config.yaml").write_text(
        f"venues: {{okx: {{symbols: [BTC-USDT], {closed}}}}}\nstatus: {{interval_seconds: 1}}\n"
    )
    running = Running(tmp_path)
    running.wait_for("[DISC]")
    found = listening(running.process.pid)
    running.process.kill()
    running.end()
    assert found == {}


@LINUX
def test_simulated_exchanges_listen_on_loopback_only(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    running = Running(tmp_path, "--simulate", "--speed", "60")
    running.wait_for("[OK]")  # a table is shown before anything is started
    found = listening(running.process.pid)
    running.process.kill()
    running.end()
    assert found == {"tcp": ["0100007F"] * 3}


# --- the configuration ------------------------------------------------------------------------------------


def test_a_configuration_is_read_and_never_run(tmp_path):
    tags = {
        "data_dir": "!!python/object/apply:os.system [touch pwned]",
        "log_dir": "!!python/object/new:subprocess.Popen [[touch, pwned]]",
        "status": "!!python/module:antigravity {}",
        "storage": "!include /etc/passwd",
        "shutdown": "!!python/name:os.system",
    }
    text = "venues: {okx: {symbols: [BTC-USDT]}}\n" + "".join(f"{key}: {tag}\n" for key, tag in tags.items())
    (tmp_path / "config.yaml").write_text(text)
    done = subprocess.run([*RUN, "--simulate"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == list(tags)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml"]
