"""Debian packages without root: downloads them, with what they depend on, into a directory of ours.

Owns: apt's private state and reading the machine's own package sources. Must not know: what is done
with the packages. Nothing of the system's package database is read or changed.
"""

import dataclasses
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence

_APT_DIR = pathlib.Path("/etc/apt")
_TIMEOUT_S = 300.0


class AptError(Exception):
    """Packages could not be downloaded; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mirror:
    """A package archive that the machine already trusts; `keyring` is None where it is trusted globally."""

    uri: str
    keyring: str | None

    def source_line(self, suite: str) -> str:
        option = f"[signed-by={self.keyring}] " if self.keyring else ""
        return f"deb {option}{self.uri} {suite} main\n"


def download_packages(names: Sequence[str], suite: str, work_dir: pathlib.Path) -> list[pathlib.Path]:
    """Download `names` and all they depend on from the first mirror that has `suite`. Raises AptError."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise AptError("this machine has no apt-get")
    mirrors = list(dict.fromkeys(machine_mirrors(_APT_DIR)))
    if not mirrors:
        raise AptError(f"no package archive with a component `main` in {_APT_DIR}")
    failures = []
    for mirror in mirrors:
        try:
            return _download(names, mirror.source_line(suite), work_dir)
        except AptError as error:
            failures.append(str(error))
    raise AptError("; ".join(failures))


def machine_mirrors(apt_dir: pathlib.Path) -> Iterator[Mirror]:
    """The archives in this machine's apt configuration, in both of its formats, without the security ones."""
    parts = apt_dir / "sources.list.d"
    for path in sorted(parts.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            yield from _from_stanza(stanza)
    for path in [apt_dir / "sources.list", *sorted(parts.glob("*.list"))]:
        if path.is_file():
            for line in path.read_text().splitlines():
                yield from _from_line(line)


def _from_stanza(stanza: str) -> Iterator[Mirror]:
    fields = {
        key.lower(): value.strip()
        for key, value in re.findall(r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t]+.*)*)", stanza, re.MULTILINE)
    }
    if fields.get("enabled", "yes").lower() == "no" or "deb" not in fields.get("types", "").split():
        return
    if "main" not in fields.get("components", "").split():
        return
    signed_by = fields.get("signed-by", "")
    keyring = signed_by if signed_by.startswith("/") else None
    yield from (Mirror(uri, keyring) for uri in fields.get("uris", "").split() if "security" not in uri)


def _from_line(line: str) -> Iterator[Mirror]:
    match = re.match(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+\S+\s+(?P<components>.*)", line)
    if match is None or "main" not in match["components"].split() or "security" in match["uri"]:
        return
    keyring = re.search(r"signed-by=(/\S+)", match["options"] or "")
    yield Mirror(match["uri"], keyring[1] if keyring else None)


def _download(names: Sequence[str], source_line: str, work_dir: pathlib.Path) -> list[pathlib.Path]:
    shutil.rmtree(work_dir, ignore_errors=True)
    archives = work_dir / "cache/archives"
    for directory in (work_dir / "state/lists/partial", archives / "partial"):
        directory.mkdir(parents=True)
    (work_dir / "state/status").touch()
    (work_dir / "sources.list").write_text(source_line)
    _apt_get(work_dir, "update")
    _apt_get(work_dir, "--yes", "--no-install-recommends", "--download-only", "install", *names)
    return sorted(archives.glob("*.deb"))


def _apt_get(work_dir: pathlib.Path, *arguments: str) -> None:
    settings = {
        "Dir::Etc::sourcelist": f"{work_dir}/sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": f"{work_dir}/state",
        "Dir::State::status": f"{work_dir}/state/status",
        "Dir::Cache": f"{work_dir}/cache",
        # Root would hand downloads to the user _apt, who can't write here.
        "APT::Sandbox::User": "",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
    }
    options = [text for key, value in settings.items() for text in ("-o", f"{key}={value}")]
    try:
        subprocess.run(
            ["apt-get", "-q", *options, *arguments],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        raise AptError(f"apt-get: {error.stderr.strip()[-500:]}") from error
    except subprocess.TimeoutExpired as error:
        raise AptError(f"apt-get did not finish in {_TIMEOUT_S:.0f} s") from error
