"""The programs as their users run them: as processes, spoken to by signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = [sys.executable, str(ROOT / "run.py")]
AUDIT = [sys.executable, str(ROOT / "tools" / "audit.py")]
CONFIG = """\
data_dir: data
log_dir: logs
venues:
  coinbase: {symbols: [BTC-USD, ETH-USD]}
  kraken: {symbols: [BTC/USD, ETH/USD]}
  okx: {symbols: [BTC-USDT, ETH-USDT]}
gap_detection: {lookback_days: 0}
storage: {flush_interval_seconds: 60}
status: {interval_seconds: 30}
"""


class Running:
    """A collector in a process of its own, spoken to by signals."""

    def __init__(self, home, *options):
        self.process = subprocess.Popen(
            [*RUN, *options], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )

    def wait_for(self, word):
        """Read tables until one says *word*."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if word in line:
                return
        raise AssertionError(f"ended without saying {word!r}: {self.process.stderr.read()}")

    def end(self):
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err
