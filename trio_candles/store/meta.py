"""What a directory remembers of itself, and what the running collector's table shows: the tables ``meta`` and
``venue_state``.

Works inside the journal's transactions, on its connection.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import attrs

from trio_candles.candles.delays import Delays, delays_text
from trio_candles.candles.model import Millis
from trio_candles.store.schema import DELAYS, WAITS

__all__ = ["Meta"]


@attrs.frozen
class Meta:
    """The tables of an open journal."""

    _db: sqlite3.Connection

    def read(self) -> dict[str, str]:
        """Everything that is remembered."""
        return {str(key): str(value) for key, value in self._db.execute("SELECT key, value FROM meta")}

    def keep(self, values: Mapping[str, object]) -> None:
        """Keep *values* as text; ``None`` forgets."""
        for key, value in values.items():
            if value is None:
                self._db.execute("DELETE FROM meta WHERE key = ?", (key,))
            else:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, str(value)))

    def publish(
        self,
        states: Iterable[Sequence[object]],
        errors: Mapping[str, str],
        now: Millis,
        waits: str | None,
        delays: Mapping[str, Delays],
    ) -> None:
        """As ``Journal.publish``."""
        self._db.execute("DELETE FROM venue_state")  # of venues that are not collected any more, too
        self._db.executemany(
            "INSERT INTO venue_state (venue, status, connected, received, saved, reconnects, rejected, at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(*state, now) for state in states],
        )
        errors_text = json.dumps(dict(errors)) if errors else None
        self.keep({"store_errors": errors_text, WAITS: waits, DELAYS: delays_text(delays)})
        if waits is None:
            self.keep({"latest_ms": now})
