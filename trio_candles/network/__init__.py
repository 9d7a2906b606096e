"""The way to the venues: WebSocket connections, REST, their paces; and a webhook's way out.

========= ==============================================================================
websocket opens connections; library errors become ``Lost``
names     looks host names up, one look-up a host
trust     which authorities TLS trusts, for all
streams   byte streams below the WebSocket library: paced reads, TLS, joined messages
joining   joins the messages of one read, and parts them again
pacing    budgets, back-off, the floor under network deadlines
rest      asks a venue's REST within its budgets
webhook   posts JSON to an address that somebody gave us
========= ==============================================================================

How often a venue may be asked is decided in the venue's folder: ``rates`` and ``penalty`` in
``venues/{venue}/history.py`` for REST, ``limits`` in ``venues/{venue}/feed.py`` for WebSocket.
"""
