"""Which authorities are trusted, for whoever speaks TLS here: sockets, REST and the webhook alike.

The authorities that httpx ships, the same on every system; or those that the environment names in ``SSL_CERT_FILE``
and ``SSL_CERT_DIR``, as OpenSSL has it (a company's proxy, an authority of one's own). Verification is never off.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from functools import cache

import httpx

__all__ = ["BadAuthorities", "trusted"]

FILE, DIRECTORY = "SSL_CERT_FILE", "SSL_CERT_DIR"


class BadAuthorities(OSError):
    """The environment names authorities that cannot be read; the text names the variable."""


def trusted(environment: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """The TLS context with the trusted authorities, the same one each time; :class:`BadAuthorities`."""
    return _context(environment.get(FILE) or None, environment.get(DIRECTORY) or None)


@cache
def _context(file: str | None, directory: str | None) -> ssl.SSLContext:
    if directory is not None and not os.path.isdir(directory):  # OpenSSL says nothing
        raise BadAuthorities(f"{DIRECTORY}={directory}: no such directory")
    if file is None and directory is None:
        context = httpx.create_ssl_context(trust_env=False)
    else:
        try:
            context = ssl.create_default_context(cafile=file, capath=directory)
        except OSError as error:  # ssl.SSLError, where the file has no certificate, is one
            raise BadAuthorities(f"{FILE}={file}: {error}") from error
    # httpcore sets the same on any context that it is given: without this line, what a socket offers would depend on
    # whether REST had been asked before.
    context.set_alpn_protocols(["http/1.1"])
    return context
