"""trio_candles: 1-minute candles of several crypto exchanges, collected so that they can be believed."""

__version__ = "0.1.0"
