"""Which onnxruntime is installed. Must not know: what runs on it."""

from __future__ import annotations

from importlib import metadata

_RIVALS = ("onnxruntime", "onnxruntime-gpu")


def conflict() -> str | None:
    """Why none of the installed onnxruntimes can be trusted; None if there are not two.

    Both distributions install the same directory. The one that came last has overwritten part of the other, so what
    runs is a mixture, and removing either leaves the other without its files.
    """
    versions = {name: _version(name) for name in _RIVALS}
    if None in versions.values():
        return None
    found = " and ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{found} are both installed, into the same directory: keep one. "
        "`pip uninstall -y onnxruntime onnxruntime-gpu`, then install 'extproc[cpu]' or 'extproc[gpu]'"
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
