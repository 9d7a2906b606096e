"""The way to the venues: WebSocket connections, REST, their paces; and a webhook's way out.

========= ==============================================================================
websocket opens connections; library errors become one
streams   byte streams below the WebSocket library: paced reads, TLS, joined messages
joining   joins the messages of one read, and parts them again
pacing    budgets, back-off, the floor under network deadlines
rest      asks a venue's REST within its budgets
webhook   posts JSON to an address that somebody gave us
========= ==============================================================================
"""
