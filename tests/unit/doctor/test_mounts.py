"""Where a folder's bytes come from, by recorded mountinfos, and NFS options as typed and as the kernel tells them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from framefeed.cli.doctor.finding import Level, worst
from framefeed.cli.doctor.mounts import WANTED, check_mount, check_nfs_options, mount_of, parse_mountinfo

# A box of two NFS mounts, one over the other, and a container's overlay; the last line is none.
RECORDED = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
35 22 0:32 / /nfs ro,noatime,nodiratime shared:9 - nfs4 10.0.2.2:/v rw,vers=4.2,rsize=1048576,hard,proto=tcp,nconnect=8
36 22 0:33 / /nfs/my\040videos rw,relatime shared:10 - nfs 10.0.0.9:/a\134b rw,vers=3,rsize=32768,soft,proto=udp,sync
37 22 0:34 / /srv rw - overlay overlay rw,lowerdir=/a
38 22 0:35 / /srv ro - fuse.sshfs me@there: rw,user_id=0
39 22 0:36
"""
MOUNTS = parse_mountinfo(RECORDED)


def test_every_line_is_a_mount_and_half_a_line_is_none() -> None:
    assert [mount.point for mount in MOUNTS] == ["/", "/nfs", "/nfs/my videos", "/srv", "/srv"]
    assert MOUNTS[2].source == "10.0.0.9:/a\\b"


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("/nfs/chunks", "10.0.2.2:/v"),
        ("/nfs/my videos/a", "10.0.0.9:/a\\b"),
        ("/nfs/my", "10.0.2.2:/v"),
        ("/srv/x", "me@there:"),
        ("/nfsx", "/dev/vda1"),
    ],
)
def test_a_folder_lies_on_the_deepest_mount_and_of_two_at_one_place_on_the_last(folder: str, source: str) -> None:
    mount = mount_of(folder, MOUNTS)
    assert mount is not None
    assert mount.source == source


def said(options: str) -> dict[str, Level]:
    return {
        finding.change or finding.seen: finding.level for finding in check_nfs_options(options.split(","), what="x")
    }


def test_what_is_recommended_is_well_before_the_mount_and_after_it() -> None:
    assert list(said(WANTED).values()) == [Level.OK]
    assert [finding.level for finding in check_mount(MOUNTS[1], "/nfs/chunks")] == [Level.OK]
    compose = Path(__file__).parents[3] / "deploy/compose.nfs.yaml"
    options = yaml.safe_load(compose.read_text())["volumes"]["videos"]["driver_opts"]["o"]
    assert options.partition(",")[2] == WANTED, "behind the address"


def test_what_harms_is_named_with_what_to_have_instead() -> None:
    found = check_mount(MOUNTS[2], "/nfs/my videos")
    assert worst(found) is Level.BAD
    text = " ".join(f"{finding.seen} > {finding.change}" for finding in found)
    for words in (
        "soft",
        "mounted for writing",
        "version 3",
        "nconnect=8",
        "rsize=32768",
        "without udp",
        "without sync",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ("ro,softerr,nfsvers=4.2,nconnect=4", Level.WARN),
        ("ro,hard,nconnect=4", Level.WARN),
        ("ro,hard,vers=4.0,nconnect=4", Level.WARN),
        ("ro,hard,vers=4.1,nconnect=two", Level.WARN),
        ("ro,hard,vers=4.1,nconnect=2", Level.OK),
        ("ro,soft,vers=4.2,nconnect=8", Level.BAD),
    ],
)
def test_each_option_counts(options: str, level: Level) -> None:
    assert worst(check_nfs_options(options.split(","), what="x")) is level


def test_other_storage_is_named() -> None:
    assert [finding.level for finding in check_mount(MOUNTS[0], "/a")] == [Level.OK]
    assert [finding.level for finding in check_mount(MOUNTS[4], "/srv")] == [Level.WARN]
    assert [finding.level for finding in check_mount(None, "/srv")] == [Level.WARN]
