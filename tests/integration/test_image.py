"""The image's recipe, carried out step by step and started as it would be; no Docker engine runs with the tests."""

import pathlib
import shutil
import signal
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator

import pytest

from extproc.stack.probe import answers_ok
from tests.helpers.dockerfile import NOBODY, Build, as_user
from tests.helpers.ports import free_base
from tests.helpers.processes import wait_until

DOCKERFILE = pathlib.Path(__file__).parents[2] / "Dockerfile"
_START_S = 30.0


@pytest.fixture(scope="module")
def build() -> Iterator[Build]:
    # Not pytest's own directory, which only its owner can enter.
    root = pathlib.Path(tempfile.mkdtemp(prefix="extproc-image-"))
    root.chmod(0o755)
    made = Build(DOCKERFILE, root)
    made.run()
    yield made
    shutil.rmtree(root)


def _files(root: pathlib.Path) -> Iterator[pathlib.Path]:
    yield from (path for path in root.rglob("*") if path.is_file())


@pytest.mark.timeout(300)
def test_the_image_starts_as_nobody_is_healthy_and_drains(build: Build, tmp_path: pathlib.Path) -> None:
    image, base = build.image, free_base()
    (home := pathlib.Path(tempfile.mkdtemp(prefix="extproc-writable-"))).chmod(0o777)
    config = build.root / "gateway.yaml"
    config.write_text(_gateway(home, base))
    assert image.command == ["serve", "--config", "/etc/extproc/gateway.yaml"]
    command = [build.rooted(f"/opt/extproc/bin/{image.entrypoint[0]}"), "serve", "--config", str(config)]
    # HOME is the image's only writable place, /tmp; here that is this test's.
    env = {**build.environment(), "HOME": str(home), "TMPDIR": str(home)}
    as_nobody = as_user(NOBODY)
    health = [build.rooted(f"/opt/extproc/bin/{image.health[0]}"), *image.health[1:], "--admin", f"127.0.0.1:{base}"]
    with (home / "log").open("wb") as log:
        service = subprocess.Popen(command, env=env, cwd="/", stdout=log, stderr=log, **as_nobody)
    try:
        starting = subprocess.run(health, env=env, capture_output=True, timeout=20, check=False)
        assert starting.returncode in {0, 1}
        assert wait_until(lambda: answers_ok("127.0.0.1", base, "/readyz"), _START_S), (home / "log").read_text()
        assert subprocess.run(health, env=env, timeout=20, check=False, **as_nobody).returncode == 0
        service.send_signal(getattr(signal, image.stop_signal))
        assert service.wait(20) == 0, (home / "log").read_text()
        assert subprocess.run(health, env=env, capture_output=True, timeout=20, check=False).returncode == 1
    finally:
        service.kill()
        service.wait()
        shutil.rmtree(home)


@pytest.mark.timeout(300)
def test_nothing_that_builds_is_left_and_nothing_belongs_to_the_user(build: Build) -> None:
    image = build.image
    assert image.steps == 0, "what the last stage runs is a layer with tools in it"
    assert image.user == f"{NOBODY}:{NOBODY}"
    installed = {path.name.lower() for path in (build.root / "opt" / "extproc" / "lib").glob("python*/site-packages/*")}
    unwanted = {"pip", "setuptools", "hatchling", "grpc_tools", "onnx", "torch", "pytest", "envoy", "psutil", "rich"}
    assert installed.isdisjoint(unwanted)
    assert {"extproc", "onnxruntime"} <= installed
    assert not [path for path in _files(build.root / "opt") if path.stat().st_mode & 0o022]
    assert not [path for path in _files(build.root / "opt") if path.suffix == ".pth" and "extproc" in path.name]


def _gateway(home: pathlib.Path, admin: int) -> str:
    """Everything on that a model is needed for, so that those in the image are used."""
    return textwrap.dedent(f"""
        service: {{listen: "unix:{home}/extproc.sock", admin: "127.0.0.1:{admin}", notice_s: 0, drain_timeout_s: 5}}
        redis: {{url: "unix://{home}/none.sock"}}
        ledger: {{spool_dir: "{home}/spool"}}
        keys: {{hash_secret: 0123456789abcdef}}
        models: {{m: {{pool: p, operations: [chat], context_window: 100}}}}
        pools: {{p: {{dialect: openai, model: x, clusters: {{c: {{endpoints: ["127.0.0.1:9"]}}}}}}}}
        policies: {{guard: {{mode: shadow}}}}
        """)
