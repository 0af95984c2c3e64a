"""The directory of one stack: held by one process, private, remembered for `extproc keys`."""

import pathlib

import pytest

from extproc.stack.ports import from_base
from extproc.stack.run_dir import InUse, RunDir, recorded_environment


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("EXTPROC_KEY_SECRET", raising=False)


def test_only_one_stack_uses_it(tmp_path: pathlib.Path) -> None:
    first = RunDir(tmp_path)
    with pytest.raises(InUse):
        RunDir(tmp_path)
    first.release()
    RunDir(tmp_path).release()


def test_the_environment_is_recorded_and_the_secret_kept(tmp_path: pathlib.Path) -> None:
    held = RunDir(tmp_path / "run")
    environment = held.environment(from_base(20000), workers=2)
    held.release()
    assert environment["EXTPROC_TRITON_B_HTTP_PORT"] == "20020"
    assert environment["EXTPROC_TRITON_A_METRICS_PORT"] == "20012"
    assert environment["EXTPROC_WORKERS"] == "2"
    assert environment["REDIS_URL"] == f"unix://{tmp_path}/run/redis.sock"
    assert recorded_environment(tmp_path / "run") == environment
    again = RunDir(tmp_path / "run")
    assert again.environment(from_base(20000), workers=1)["EXTPROC_KEY_SECRET"] == environment["EXTPROC_KEY_SECRET"]
    again.release()
    for name in ("environment.json", "key-secret"):
        assert (tmp_path / "run" / name).stat().st_mode & 0o077 == 0


def test_what_is_given_from_outside_wins(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:6379")
    monkeypatch.setenv("EXTPROC_KEY_SECRET", "given from outside")
    held = RunDir(tmp_path)
    environment = held.environment(from_base(20000), workers=1)
    held.release()
    assert environment["REDIS_URL"] == "redis://elsewhere:6379"
    assert environment["EXTPROC_KEY_SECRET"] == "given from outside"
    assert not (tmp_path / "key-secret").exists()


def test_no_stack_has_recorded_nothing(tmp_path: pathlib.Path) -> None:
    assert recorded_environment(tmp_path) == {}
