"""A Chromium for tests: one that the machine has, or a private copy of Debian's package, unpacked and not installed.

The copy is of the machine's own Debian release, so that its C library fits, and brings the libraries and the font that
it needs. Elsewhere, as on Ubuntu, whose package is another kind of thing, there is none.
"""

import pathlib
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field

import pytest

from extproc.stack import artifact
from extproc.stack.apt import AptError, download_packages
from extproc.stack.home import home

_PACKAGE = "chromium-headless-shell"
_NAMES = (_PACKAGE, "chromium", "google-chrome")
_NOT_NEEDED = (
    "libc6_",
    "libllvm",
    "libz3-",
    "libgl1-mesa-dri_",
    "mesa-",
    "x11-utils_",
    "xkb-data_",
    "chromium-sandbox_",
)
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_FONTS = """<?xml version="1.0"?>
<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>
"""
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Chromium:
    """How to start it: `environment` is what it needs besides one's own."""

    path: str
    environment: dict[str, str] = field(default_factory=dict)


def chromium() -> Chromium:
    """Skips the test where there is none to be had."""
    on_path = next(filter(None, map(shutil.which, _NAMES)), None)
    if on_path is not None:
        return Chromium(on_path)
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian" or "VERSION_CODENAME" not in release:
        pytest.skip(f"no Chromium on this machine (Debian: {_PACKAGE})")
    root = home() / "chromium"
    suite = release["VERSION_CODENAME"]
    try:
        artifact.ensure(root, {"package": _PACKAGE, "suite": suite, "revision": "1"}, lambda made: _unpack(suite, made))
    except (AptError, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no Chromium on PATH, and no private copy of it: {error}")
    return _private(root)


def _private(root: pathlib.Path) -> Chromium:
    libraries = [str(root / _LIBRARIES), str(root / "lib/x86_64-linux-gnu"), str(root / _LIBRARIES / "pulseaudio")]
    environment = {"LD_LIBRARY_PATH": ":".join(libraries), "FONTCONFIG_FILE": str(root / "fonts.conf")}
    return Chromium(str(root / "usr/lib/chromium" / _PACKAGE), environment)


def _unpack(suite: str, root: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(prefix="extproc-apt-") as work_dir:
        for package in download_packages((_PACKAGE,), suite, pathlib.Path(work_dir)):
            if not package.name.startswith(_NOT_NEEDED):
                subprocess.run(["dpkg-deb", "-x", package, root], check=True, capture_output=True)
    shutil.rmtree(root / "usr/share/doc", ignore_errors=True)
    final = home() / "chromium"
    (root / "fonts.conf").write_text(_FONTS.format(fonts=final / "usr/share/fonts", cache=final / "fonts-cache"))
    # A copy that does not start is none.
    copy = _private(root)
    command = (copy.path, "--no-sandbox", "--dump-dom", "data:text/html,ready")
    subprocess.run(command, env=copy.environment, check=True, capture_output=True, timeout=_START_TIMEOUT_S)
