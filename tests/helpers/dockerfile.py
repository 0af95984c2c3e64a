"""A Dockerfile carried out without Docker: its own steps, in one directory that stands for the file system's root.

All stages share that directory; what the last one has not copied from the others is removed in the end, so that it has
to do without. Base images are this machine's Python. Knows the instructions and the absolute paths of our Dockerfile,
and refuses others. Shows nothing of: layers, the base image, users' rights to what that brings.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_ROOTED = re.compile(r"(?<![\w./-])/(opt|src)\b")
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
_OPTION = re.compile(r"--(?P<name>[\w-]+)=(?P<value>\S+)\s+")
_STEP_TIMEOUT_S = 300
NOBODY = 10001
"""The image's user."""


@dataclass
class Image:
    """What the last stage says of the image, paths as in the Dockerfile."""

    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    stop_signal: str = ""
    copied: list[str] = field(default_factory=list)
    steps: int = 0
    """RUN instructions in it."""


class Build:
    """Carried out by `run`; `root` is made empty before."""

    def __init__(self, dockerfile: pathlib.Path, root: pathlib.Path) -> None:
        self._context, self._text, self.root = dockerfile.parent, dockerfile.read_text(), root
        self._base = root / "base"
        self._workdir = "/"
        self._arguments: dict[str, str] = {}
        self.image = Image()

    def run(self) -> Image:
        self._lay_base_image()
        for name, rest in _instructions(self._text):
            getattr(self, f"_do_{name.lower()}")(rest)
        self._keep_only_what_was_copied()
        return self.image

    def _lay_base_image(self) -> None:
        """A `python` and a `pip`, as the base image has them: this machine's."""
        self._base.mkdir(parents=True)
        (self._base / "python").symlink_to(_python())
        pip = self._base / "pip"
        pip.write_text(f'#!/bin/sh\nexec {sys.executable} -m pip "$@"\n')
        pip.chmod(0o755)

    def rooted(self, text: str) -> str:
        """Absolute paths of the image as they are here."""
        return _ROOTED.sub(lambda match: f"{self.root}{match[0]}", text)

    def environment(self) -> dict[str, str]:
        """What a process in the container would see."""
        own = {name: self.rooted(value) for name, value in self.image.env.items()}
        return {**own, "PATH": own["PATH"].replace("$PATH", "/usr/bin:/bin")}

    def _do_from(self, rest: str) -> None:
        self.image, self._workdir = Image(), "/"

    def _do_arg(self, rest: str) -> None:
        name, _, value = rest.partition("=")
        self._arguments[name] = value

    def _do_workdir(self, rest: str) -> None:
        self._workdir = rest
        pathlib.Path(self.rooted(rest)).mkdir(parents=True, exist_ok=True)

    def _do_copy(self, rest: str) -> None:
        options = dict(_OPTION.findall(rest))
        *sources, target = _OPTION.sub("", rest).split()
        if "from" in options:
            assert sources == [target], "what is copied between stages keeps its place"
            assert pathlib.Path(self.rooted(target)).exists(), f"{target} was not made"
            self.image.copied.append(target)
            return
        destination = pathlib.Path(self.rooted(self._workdir)) / target
        for source in sources:
            origin = self._context / source
            if origin.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "_pb")  # as .dockerignore says
                shutil.copytree(origin, destination, ignore=ignored, dirs_exist_ok=True)
            else:
                shutil.copy(origin, destination)

    def _do_run(self, rest: str) -> None:
        self.image.steps += 1
        command = _VARIABLE.sub(self._value, _OPTION.sub("", rest))
        done = subprocess.run(
            ["bash", "-euc", self.rooted(command)],
            cwd=self.rooted(self._workdir),
            env={**_without_ours(), "PATH": f"{self._base}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=_STEP_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    def _value(self, match: re.Match[str]) -> str:
        """An argument's; a shell variable stays for the shell."""
        return self._arguments.get(match[1] or match[2], match[0])

    def _do_env(self, rest: str) -> None:
        for pair in shlex.split(rest):
            name, _, value = pair.partition("=")
            self.image.env[name] = value

    def _do_user(self, rest: str) -> None:
        self.image.user = rest

    def _do_expose(self, rest: str) -> None:
        assert rest.isdecimal()

    def _do_stopsignal(self, rest: str) -> None:
        self.image.stop_signal = rest

    def _do_healthcheck(self, rest: str) -> None:
        self.image.health = json.loads(_OPTION.sub("", rest).removeprefix("CMD"))

    def _do_entrypoint(self, rest: str) -> None:
        self.image.entrypoint = json.loads(rest)

    def _do_cmd(self, rest: str) -> None:
        self.image.command = json.loads(rest)

    def _keep_only_what_was_copied(self) -> None:
        kept = {pathlib.Path(self.rooted(path)) for path in self.image.copied}
        for top in self.root.iterdir():
            for path in [top] if top.name != "opt" else top.iterdir():
                if path not in kept and path != self._base:
                    shutil.rmtree(path)


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    said = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for instruction in "\n".join(said).replace("\\\n", " ").splitlines():
        name, _, rest = instruction.partition(" ")
        yield name, rest.strip()


def _python() -> pathlib.Path:
    """One that nobody in particular can run, too, where there is one: this one may be in somebody's home."""
    candidates = [pathlib.Path(sys.executable).resolve(), pathlib.Path("/usr/bin/python3").resolve()]
    return next((python for python in candidates if _runs_for_nobody(python)), candidates[0])


def _runs_for_nobody(python: pathlib.Path) -> bool:
    able = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([python, "-c", able], cwd="/", check=False, **as_user(NOBODY)).returncode == 0
    except OSError:
        return False


def as_user(number: int) -> dict[str, Any]:
    """For subprocess: another user, where this one may choose."""
    return {"user": number, "group": number, "extra_groups": []} if os.geteuid() == 0 else {}


def _without_ours() -> dict[str, str]:
    """The environment, less what would lead a step to this checkout instead of the copy."""
    ours = ("PYTHONPATH", "EXTPROC_HOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in ours}
