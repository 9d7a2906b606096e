"""Where the tests of the reader keep their data."""

from __future__ import annotations

import pytest


@pytest.fixture
def tmp_path(quick):
    """A folder in memory: on the disk that was measured, waiting for commits was a third of such a test's time."""
    return quick
