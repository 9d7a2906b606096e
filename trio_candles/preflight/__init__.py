"""Is everything ready to start? Looks at this machine and asks the venues; changes nothing and leaves nothing behind.

======== ==========================================================================================
checks   one line per check, as text and as JSON
local    configuration, versions, data directory, disk, lock, logs
visit    what the checks of one venue share: endpoints, deadlines, what was found
rest     a venue's REST: reached, its clock, what it lists, what the code assumes about it
feed     a venue's WebSocket: reached, every symbol acknowledged, first data
run      all checks within their time, as one block
tool     options, exit code
======== ==========================================================================================
"""

from trio_candles.preflight.tool import command, main

__all__ = ["command", "main"]
