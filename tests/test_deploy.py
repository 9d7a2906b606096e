"""What is in ``deploy``: that a service manager takes it, and that it goes with how the collector ends and stops."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from trio_candles.command.cli import parser
from trio_candles.config.load import Shutdown, load_config
from trio_candles.health.check import main as check_main

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "trio-candles.service").read_text(encoding="utf-8")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
TASK = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def setting(name: str) -> str:
    """The only value of *name* in the unit."""
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return value


def instructions(name: str) -> list[str]:
    """What follows *name* in the Dockerfile's last stage, continued lines joined."""
    stage = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :].replace("\\\n", " ")
    return re.findall(rf"^{name} +(.*)$", stage, re.MULTILINE)


def is_usable(arguments: list[str]) -> None:
    """The collector takes these options; SystemExit if it does not."""
    parser().parse_args(arguments)


# --- systemd


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    # What it starts is not installed here, and is replaced by something that is.
    unit = tmp_path / "trio-candles.service"
    command = setting("ExecStart").partition(" ")[0]
    unit.write_text(UNIT.replace(command, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    told = [line for line in done.stderr.splitlines() if "trio-candles" in line or unit.name in line]
    assert (done.returncode, told) == (0, [])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_a_mistake_in_a_unit_would_be_found(tmp_path):
    unit = tmp_path / "trio-candles.service"
    command = setting("ExecStart").partition(" ")[0]
    unit.write_text(UNIT.replace(command, sys.executable).replace("WatchdogSec=60", "WatchdogSec=sixty"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert "Failed to parse" in done.stderr


def test_what_another_start_would_not_mend_is_not_started_again():
    assert (setting("Restart"), setting("RestartPreventExitStatus")) == ("on-failure", "2 3")


def test_a_stop_has_more_time_than_the_collector_takes():
    assert float(setting("TimeoutStopSec")) >= Shutdown().timeout_seconds + 10


def test_the_manager_is_told_and_watches():
    assert (setting("Type"), setting("NotifyAccess")) == ("notify", "main")
    # The writer goes round every five seconds, and we tell of it after a quarter of this at the latest.
    assert float(setting("WatchdogSec")) >= 20


def test_the_collector_takes_what_the_unit_gives_it():
    program, *arguments = setting("ExecStart").split()
    assert Path(program).name in PROJECT["scripts"]
    is_usable(arguments)
    assert f"/var/lib/{setting('StateDirectory')}" in arguments
    assert setting("WorkingDirectory") == f"/var/log/{setting('LogsDirectory')}"


# --- Docker


def test_the_container_runs_as_nobody_in_particular_and_gets_its_signals():
    (user,) = instructions("USER")
    assert user.partition(":")[0] not in ("0", "root")
    (entry,) = instructions("ENTRYPOINT")
    program, *arguments = json.loads(entry)  # the exec form: no shell stands between the signal and the collector
    assert program in PROJECT["scripts"]
    is_usable(arguments)
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert instructions("CMD") == []


def test_the_containers_health_is_whether_the_collector_lives(capsys, tmp_path):
    (health,) = instructions("HEALTHCHECK")
    program, *arguments = json.loads(health[health.index("[") :])
    assert program == "trio-candles-check"
    assert PROJECT["scripts"][program] == "trio_candles.entry:check"
    assert "--alive" in arguments
    (entry,) = instructions("ENTRYPOINT")
    data_dir = arguments[arguments.index("--data-dir") + 1]
    assert data_dir in json.loads(entry)
    assert data_dir in json.loads(instructions("VOLUME")[0])
    assert check_main([str(tmp_path) if one == data_dir else one for one in arguments]) == 1


def test_the_image_is_made_of_a_python_that_is_promised():
    versions = set(re.findall(r"^FROM python:(\S+)-slim", DOCKERFILE, re.MULTILINE))
    assert len(versions) == 1
    promised = {one.rpartition(" ")[2] for one in PROJECT["classifiers"] if "Python :: 3." in one}
    assert versions <= promised


def test_what_the_image_is_made_of_is_sent_to_the_builder_and_nothing_else():
    sent = set(re.findall(r"^!(.*)$", (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert sent == copied
    assert all((ROOT / name).exists() for name in copied)
    assert load_config(ROOT / "config.yaml").log_dir == Path("logs")  # with the working directory /: the volume


# --- Windows


def test_the_task_is_well_formed_starts_at_boot_and_has_no_end_of_its_own():
    task = ElementTree.parse(DEPLOY / "trio-candles.xml").getroot()
    assert task.tag == f"{TASK}Task"
    boot = f"{TASK}Triggers/{TASK}BootTrigger/"
    assert task.findtext(f"{boot}{TASK}Repetition/{TASK}Interval") == "PT5M"
    assert task.findtext(f"{TASK}Settings/{TASK}ExecutionTimeLimit") == "PT0S"
    assert task.findtext(f"{TASK}Settings/{TASK}MultipleInstancesPolicy") == "IgnoreNew"


def test_the_collector_takes_what_the_task_gives_it():
    execute = ElementTree.parse(DEPLOY / "trio-candles.xml").getroot().find(f"{TASK}Actions/{TASK}Exec")
    assert execute is not None
    command = execute.findtext(f"{TASK}Command") or ""
    assert command.rpartition("\\")[2].removesuffix(".exe") in PROJECT["scripts"]
    is_usable((execute.findtext(f"{TASK}Arguments") or "").split())
