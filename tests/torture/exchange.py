"""The simulated exchanges as a process of their own: prints where they are, obeys lines of JSON on stdin."""

from __future__ import annotations

import json
import sys

import attrs
import trio

from trio_candles.clock import WallTime
from trio_candles.simulator import Market, open_exchanges_on_loopback


async def main(seed: int, speed: float, pivot: float) -> None:
    """Serve for ever; ``{"mute": true}`` sets that knob of every venue's faults."""
    async with open_exchanges_on_loopback(Market(seed), WallTime(speed, pivot).now) as world:
        print(json.dumps({name: attrs.asdict(one) for name, one in world.endpoints.items()}), flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            for knob, value in json.loads(line).items():
                for exchange in world.exchanges.values():
                    setattr(exchange.faults, knob, value)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
