"""An image's lifecycle directory is unpacked without leaving the place for it, on every Python."""

from __future__ import annotations

import tarfile

import pytest

from shim.errors import ShimError
from shim.tools.derive import checked


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


LIFECYCLE = [
    member("lifecycle/", tarfile.DIRTYPE),
    member("lifecycle/lifecycle"),
    member("lifecycle/restorer", tarfile.SYMTYPE, "lifecycle"),
    member("lifecycle/analyzer", tarfile.SYMTYPE, "/cnb/lifecycle/lifecycle"),
    member("lifecycle/exporter", tarfile.LNKTYPE, "lifecycle/lifecycle"),
    member("lifecycle/more/..file"),
]


def test_a_lifecycle_directory_is_taken() -> None:
    assert list(checked(LIFECYCLE)) == [one.name.rstrip("/") for one in LIFECYCLE]


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/passwd"),
        member("../etc/passwd"),
        member("lifecycle/../../etc/passwd"),
        member("lifecycle/./x"),
        member("lifecycle//x"),
        member("elsewhere/x"),
        member(""),
        member("lifecycle/restorer/x"),
        member("lifecycle/exporter/x"),
        member("lifecycle/lifecycle"),
        member("lifecycle/link", tarfile.LNKTYPE, "/etc/passwd"),
        member("lifecycle/link", tarfile.LNKTYPE, "../etc/passwd"),
        member("lifecycle/link", tarfile.LNKTYPE, "lifecycle/restorer"),
        member("lifecycle/null", tarfile.CHRTYPE),
        member("lifecycle/disk", tarfile.BLKTYPE),
        member("lifecycle/pipe", tarfile.FIFOTYPE),
        member("lifecycle/\x1b[2J\0"),
    ],
    ids=lambda one: repr((one.name, one.linkname)),
)
def test_what_would_lead_elsewhere_is_refused(bad: tarfile.TarInfo) -> None:
    with pytest.raises(ShimError, match="can't be unpacked safely") as raised:
        checked([*LIFECYCLE, bad])
    assert str(raised.value).isprintable()
