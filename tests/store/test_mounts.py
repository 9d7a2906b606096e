"""A data directory that spans file systems is found before anything is collected into it, and so is a network's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import RUN

from trio_candles.store.mounts import Mount, is_networked, listed_by_linux, listed_by_macos, mount_of, spanning

VENUES = ("coinbase", "okx")


@pytest.fixture
def tmp_path(tmp_path_factory) -> Path:
    """A folder on the disk, so that memory is another file system."""
    return tmp_path_factory.mktemp("disk")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for folder in (".tmp", "quarantine", "okx/BTC-USDT/1m", "coinbase/BTC-USD/1m", "backup"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "data" / "journal.sqlite3").write_bytes(b"")
    return tmp_path / "data"


@pytest.fixture
def elsewhere():
    """A folder on another file system than the tests' own."""
    place = Path("/dev/shm")
    if not os.access(place, os.W_OK) or place.stat().st_dev == Path(os.environ.get("TMPDIR", "/tmp")).stat().st_dev:
        pytest.skip("there is no second file system here")
    folder = place / f"trio-candles-{os.getpid()}"
    folder.mkdir()
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir()
    folder.rmdir()


def test_a_venues_folder_that_is_a_link_to_another_disk_is_refused_with_both_mounts(data, elsewhere):
    (data / "okx").rename(data / "moved")
    (data / "okx").symlink_to(elsewhere, target_is_directory=True)
    known = [Mount("/", "ext4"), Mount("/dev/shm", "tmpfs")]
    said = spanning(data, VENUES, known)
    assert said is not None
    assert all(part in said for part in ("okx lies", "tmpfs at /dev/shm", "ext4 at /"))
    assert "\n" not in said


@pytest.mark.parametrize(
    "part", [".tmp", "quarantine", "journal.sqlite3", "okx", "okx/BTC-USDT", "okx/BTC-USDT/1m", "backup"]
)
def test_every_part_that_files_are_moved_between_must_lie_on_one_file_system(data, part):
    """Whatever else lies in the directory is nobody's business, and timeframes are looked at where there is time."""
    strange = str(data.resolve() / part)

    def device(path: str) -> int:
        os.stat(path)
        return 2 if path == strange else 1

    found = [spanning(data, VENUES, [], depth=depth, device=device) is not None for depth in (1, 2)]
    assert found == {"backup": [False, False], "okx/BTC-USDT/1m": [False, True]}.get(part, [True, True])


def test_a_folder_that_is_mounted_a_second_time_is_another_file_system_although_its_device_is_the_same(data):
    """As with ``mount --bind``: a rename to it fails like one to another disk."""
    place = str(data.resolve())
    same = [Mount("/", "ext4"), Mount(f"{place}-other", "ext4")]
    assert spanning(data, VENUES, same) is None
    said = spanning(data, VENUES, [*same, Mount(f"{place}/okx/BTC-USDT", "ext4")])
    assert said is not None
    assert f"ext4 at {place}/okx/BTC-USDT" in said


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_within_one_file_system_and_to_nowhere_are_no_matter(data, tmp_path):
    (data / "coinbase").rename(tmp_path / "larger")
    (data / "coinbase").symlink_to(tmp_path / "larger", target_is_directory=True)
    (data / "okx" / "ETH-USDT").symlink_to(tmp_path / "nowhere")
    assert spanning(data, VENUES, [Mount("/", "ext4")]) is None
    assert spanning(tmp_path / "not yet", VENUES, []) is None


def test_the_collector_refuses_a_directory_that_spans_file_systems(data, elsewhere, tmp_path):
    (data / "okx").rename(data / "moved")
    (data / "okx").symlink_to(elsewhere, target_is_directory=True)
    (tmp_path / "config.yaml").write_text("venues: {okx: {symbols: [BTC-USDT]}}\n")
    done = subprocess.run(RUN, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("data: okx lies on another file system (tmpfs at /dev/shm)")
    assert done.stderr.count("\n") == 1
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "networked"),
    [("nfs", True), ("nfs4", True), ("cifs", True), ("smb3", True), ("smbfs", True), ("9p", True), ("afpfs", True),
     ("fuse.sshfs", True), ("fuse.s3fs", True), ("network drive", True),
     ("ext4", False), ("xfs", False), ("apfs", False), ("overlay", False), ("fuseblk", False), ("tmpfs", False)],
)  # fmt: skip
def test_file_systems_of_a_network_are_known_by_their_kind(kind, networked):
    assert is_networked(Mount("/", kind)) is networked


@pytest.mark.skipif(sys.platform == "win32", reason="paths of another kind")
def test_what_linux_and_macos_list_is_understood():
    linux = listed_by_linux("disk / ext4 rw 0 0\nnas:/x /mnt/my\\040nas nfs4 rw 0 0\nover / overlay rw 0 0\nodd\n")
    assert linux == [Mount("/", "ext4"), Mount("/mnt/my nas", "nfs4"), Mount("/", "overlay")]
    assert mount_of(Path("/mnt/my nas/data"), linux) == Mount("/mnt/my nas", "nfs4")
    assert mount_of(Path("/mnt/my nas 2/data"), linux) == Mount("/", "overlay")
    macos = listed_by_macos(
        "/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)\n"
        "//me@nas/x on /Volumes/a on b (c) (smbfs, nodev, nosuid, mounted by me)\nmap auto_home on /x (autofs)\n"
    )
    assert macos == [Mount("/", "apfs"), Mount("/Volumes/a on b (c)", "smbfs"), Mount("/x", "autofs")]
