"""What a disk may hold of the journal if the power goes while SQLite is at work."""

from __future__ import annotations

import random

__all__ = ["PAGE", "Files", "torn"]

PAGE = 4096
SECTOR = 512
Files = tuple[bytes, bytes]
"""The database and its write-ahead log."""


def torn(before: Files, now: Files, chance: random.Random) -> Files:
    """What a disk may hold of the journal if the power goes while SQLite brings it from *before* to *now*."""
    if before == now or chance.random() < 0.2:
        return now
    (old_base, old_log), (base, log) = before, now
    if old_base == base:
        # The log was written: from its end, over what the last cut had torn there, or (after a checkpoint) from its
        # beginning, with another salt. What it begins with as before was not touched.
        cut = chance.randrange(_same(old_log, log), len(log) + 1)
        noise = chance.randbytes(chance.randrange(SECTOR)) if chance.random() < 0.3 else b""
        return base, log[:cut] + (noise + old_log[cut + len(noise) :] if len(old_log) > cut else noise)
    if old_log and log.startswith(old_log):
        # Also copied into the database, from a log that was synced before: any pages may have come through.
        pages = range(0, max(len(base), len(old_base)), PAGE)
        mixed = (base if chance.random() < 0.5 else old_base.ljust(len(base), b"\0") for _ in pages)
        return b"".join(some[start : start + PAGE] for some, start in zip(mixed, pages, strict=True)), log
    return chance.choice((before, now))


def _same(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    unlike = (at for at, (this, that) in enumerate(zip(one, other, strict=False)) if this != that)
    return next(unlike, min(len(one), len(other)))
