"""Two onnxruntimes in one place are noticed, by what pip has on record."""

import pathlib
import sys

import pytest

from extproc.inference import distribution


@pytest.mark.parametrize(
    ("installed", "conflicting"),
    [
        ((), False),
        (("onnxruntime",), False),
        (("onnxruntime_gpu",), False),
        (("onnxruntime", "onnxruntime_gpu"), True),
    ],
)
def test_two_are_a_conflict(
    installed: tuple[str, ...], conflicting: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in installed:
        record = tmp_path / f"{name}-1.22.0.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.22.0\n")
    assert (distribution.conflict() is not None) is conflicting
