"""Telling a bit that has flipped from a word that somebody wrote: SQLite has no checksums."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["is_damaged"]


def is_damaged(word: object, known: Iterable[str]) -> bool:
    """Whether *word* is none that anybody writes: no text, or one bit off one of the *known* words.

    Any other unknown word was written, by a newer version or by another program, and is no damage.
    """
    return not isinstance(word, str) or any(_one_bit_apart(word, one) for one in known)


def _one_bit_apart(one: str, other: str) -> bool:
    first, second = one.encode(errors="surrogateescape"), other.encode(errors="surrogateescape")
    if len(first) != len(second):
        return False
    return (int.from_bytes(first) ^ int.from_bytes(second)).bit_count() == 1
