"""What flows through the program, and the arithmetic on it; pure: no trio, no clock, no I/O.

=========== ============================================================================
model       series, trades, candles, verdicts and gaps
times       times as people and programs write them -> Unix ms
validation  the rules for a candle
folding     trades -> a minute's candle
aggregation minutes -> higher timeframes; complete or nothing
=========== ============================================================================
"""
