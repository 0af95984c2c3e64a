"""Puts files of new models into a model repository: all of them, or none. Must not know: what is in them."""

import os
import tempfile
from pathlib import Path

from extproc.model_templates.rendering import Files


class Taken(Exception):
    """Something of that name is there already."""


def write(files: Files, repository: Path, *, replace: bool = False) -> None:
    """Raises Taken, unless what is there may be replaced as a whole; OSError, and then nothing has changed."""
    names = sorted({path.parts[0] for path in files})
    taken = [name for name in names if os.path.lexists(repository / name)]
    if taken and not replace:
        raise Taken(f"{repository / taken[0]} is there already")
    repository.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=repository) as directory:
        fresh, old = Path(directory, "fresh"), Path(directory, "old")
        old.mkdir()
        for path, text in files.items():
            place = fresh / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        _swap(names, repository, fresh, old)


def _swap(names: list[str], repository: Path, fresh: Path, old: Path) -> None:
    done: list[str] = []
    try:
        for name in names:
            if os.path.lexists(repository / name):
                (repository / name).rename(old / name)
            done.append(name)
            (fresh / name).rename(repository / name)
    except OSError:
        for name in reversed(done):
            if (repository / name).exists():
                (repository / name).rename(fresh / name)
            if os.path.lexists(old / name):
                (old / name).rename(repository / name)
        raise
