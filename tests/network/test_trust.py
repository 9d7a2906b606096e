"""Sockets, REST and the webhook trust the same authorities: the usual ones, or those that the environment names."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trustme

from trio_candles.network.rest import open_rest
from trio_candles.network.trust import BadAuthorities, trusted
from trio_candles.network.webhook import Undelivered, open_webhook
from trio_candles.network.websocket import Network, dial_tcp
from trio_candles.venues.history import Penalty, Rate, Request, Unavailable

ROOT = Path(__file__).resolve().parents[2]
RATE = Rate(per_second=100.0, burst=10, empty_at_start=False)


@asynccontextmanager
async def answering(authority: trustme.CA) -> AsyncIterator[int]:
    """Answers everything over TLS on loopback with an empty 200, and closes; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def serve(tcp: trio.SocketStream) -> None:
        async with trio.SSLStream(tcp, context, server_side=True, https_compatible=True) as stream:
            try:
                await stream.receive_some()
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
            except trio.BrokenResourceError:
                await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def refused(error: Exception) -> bool:
    """False, if *error* says that nobody vouches for the certificate."""
    behind: BaseException | None = error
    while behind is not None and "CERTIFICATE_VERIFY_FAILED" not in str(behind):
        behind = behind.__cause__ or behind.__context__
    assert behind is not None, repr(error)
    return False


async def dial_it(port: int, authorities: ssl.SSLContext | None) -> bool:
    try:
        stream = await dial_tcp(lambda: 0.0, authorities)(f"wss://127.0.0.1:{port}/")
    except trio.BrokenResourceError as error:
        return refused(error)
    await trio.aclose_forcefully(stream)
    return True


async def ask_it(port: int, authorities: ssl.SSLContext | None) -> bool:
    network = Network(dial_tcp(lambda: 0.0, authorities), authorities=authorities)
    async with open_rest(network, {None: f"https://127.0.0.1:{port}"}, {"all": RATE}, Penalty(RATE, 1.0)) as rest:
        try:
            return (await rest.ask(Request("/", {}, "all"))).body == b"[]"
        except Unavailable as error:
            return refused(error)


@attrs.frozen
class Document:
    text: str = "hello"


async def post_to_it(port: int, authorities: ssl.SSLContext | None) -> bool:
    async with open_webhook(f"https://127.0.0.1:{port}/", authorities=authorities) as hook:
        try:
            await hook.post(Document())
        except Undelivered as error:
            return refused(error)
    return True


WAYS = (dial_it, ask_it, post_to_it)


def in_a_file(authority: trustme.CA, folder: Path) -> dict[str, str]:
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    return {"SSL_CERT_FILE": str(folder / "authority.pem")}


def in_a_directory(authority: trustme.CA, folder: Path) -> dict[str, str]:
    """OpenSSL finds an authority by the hash of its name, which only OpenSSL's own command tells."""
    file = in_a_file(authority, folder)["SSL_CERT_FILE"]
    try:
        told = subprocess.run(["openssl", "x509", "-hash", "-noout", "-in", file], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("no openssl here")
    named = folder / "authorities"
    named.mkdir()
    (named / f"{told.stdout.decode().strip()}.0").write_bytes(Path(file).read_bytes())
    return {"SSL_CERT_DIR": str(named), "SSL_CERT_FILE": ""}


@pytest.mark.parametrize("place", [in_a_file, in_a_directory])
async def test_an_authority_of_the_environment_is_trusted_by_sockets_rest_and_webhook(place, tmp_path):
    authority = trustme.CA()
    authorities = trusted(place(authority, tmp_path))
    async with answering(authority) as port:
        assert [await way(port, authorities) for way in WAYS] == [True, True, True]
    async with answering(trustme.CA()) as port:
        assert [await way(port, authorities) for way in WAYS] == [False, False, False]


CHILD = """
import sys, trio
sys.path[:0] = sys.argv[1:3]
from network.test_trust import WAYS
async def all_ways(port): print([await way(port, None) for way in WAYS])
trio.run(all_ways, int(sys.argv[3]))
"""


async def test_a_process_whose_environment_names_an_authority_trusts_it_on_every_way(tmp_path):
    authority = trustme.CA()
    async with answering(authority) as port:
        told = []
        for environment in (in_a_file(authority, tmp_path), {}):
            done = await trio.run_process(
                [sys.executable, "-c", CHILD, str(ROOT), str(ROOT / "tests"), str(port)],
                env={**os.environ, "SSL_CERT_DIR": "", "SSL_CERT_FILE": "", **environment}, capture_stdout=True,
            )  # fmt: skip
            told.append(done.stdout.decode().strip())
    assert told == ["[True, True, True]", "[False, False, False]"]


def test_the_authorities_are_read_once_and_offer_the_same_whoever_comes_first():
    assert trusted({}) is trusted({"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""})
    assert trusted({}).verify_mode == ssl.CERT_REQUIRED
    assert trusted({}).check_hostname


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SSL_CERT_FILE": "missing.pem"}, "SSL_CERT_FILE=.*missing.pem: .*No such file"),
        ({"SSL_CERT_FILE": "no.pem"}, "SSL_CERT_FILE=.*no.pem: "),
        ({"SSL_CERT_DIR": "missing"}, "SSL_CERT_DIR=.*missing: no such directory"),
    ],
)
def test_authorities_that_cannot_be_read_are_an_error_that_names_the_variable(
    environment: Mapping[str, str], said, tmp_path
):
    (tmp_path / "no.pem").write_text("no certificate")
    with pytest.raises(BadAuthorities, match=said):
        trusted({name: str(tmp_path / value) for name, value in environment.items()})


def test_a_collector_whose_authorities_cannot_be_read_ends_with_2_and_a_line(tmp_path):
    (tmp_path / "config.yaml").write_text("venues: {okx: {symbols: [BTC-USDT]}}\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py")], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "SSL_CERT_DIR": "", "SSL_CERT_FILE": "missing.pem"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("SSL_CERT_FILE=missing.pem: ")
    assert done.stderr.count("\n") == 1
