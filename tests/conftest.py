"""The one option of the tests: ``--slow`` runs what takes long, and tries properties on six times the examples."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

MEMORY = Path("/dev/shm")
"""A file system in memory, on Linux."""
ROOM = 1_000_000_000
"""Bytes that a file system in memory must have free to hold the tests' folders: containers often give it 64 MB."""
NOT_RUN = "slow, not run: pytest --slow runs them"

if importlib.util.find_spec("dateutil") is None:
    # pyarrow looks for it in all of sys.path at every conversion of a Python value: three quarters of an audit's test.
    sys.modules["dateutil"] = None

# The tests start the programs some two hundred times, and without compiled modules half of each start is compiling.
# The workers and their programs inherit both of these.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# What a disk may lose is played by ``disks``; waiting for a real one proves nothing, and takes a tenth of the time.
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

settings.register_profile("quick", max_examples=25)
settings.register_profile("slow", max_examples=150)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run slow tests too, and properties on six times the examples")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes seconds; runs with --slow. A quick test holds the same promise")
    settings.load_profile("slow" if config.getoption("slow") else "quick")


def pytest_collection_modifyitems(config, items):
    """Let slow tests be skipped: the summary counts them, where others would vanish from it."""
    if not config.getoption("slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason=NOT_RUN))


def pytest_collection_finish():
    """Keep the collected tests out of every garbage collection to come: they stay until the end."""
    gc.collect()
    gc.freeze()


def pytest_report_teststatus(report):
    """Slow tests that were not run, as a count of their own in the summary."""
    if report.skipped and NOT_RUN in str(report.longrepr):
        return NOT_RUN, "", "SLOW"
    return None


@pytest.fixture
def quick():
    """A folder in memory where the system has one: what a disk may lose is played by ``disks``, and needs no disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
