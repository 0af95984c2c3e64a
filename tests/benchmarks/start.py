"""How long a service takes to its first ready: `python -m tests.benchmarks.start`.

Two workers; without policies that have patterns, with `redact` and `guard` (rules alone) while nothing is kept, and
again with what that start has kept. Best of three each.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from extproc.stack.guardian import Guardian
from extproc.stack.probe import answers_ok
from extproc.stack.process import Process
from tests.helpers import ports

CONFIG = """
gateway: {{listen: "127.0.0.1:{base}", admin: "127.0.0.1:{gateway_admin}"}}
service: {{listen: "unix:{directory}/service.sock", admin: "127.0.0.1:{admin}", workers: 2, notice_s: 0}}
redis: {{url: "unix://{directory}/no-redis.sock"}}
keys: {{hash_secret: benchmark-secret-of-32-characters}}
models: {{m: {{pool: p, operations: [chat], context_window: 1000}}}}
pools: {{p: {{dialect: openai, model: up, clusters: {{one: {{endpoints: ["127.0.0.1:9"]}}}}}}}}
"""
PATTERNS = """
policies:
  redact: {mode: enforce}
  guard: {mode: enforce, encoder: false}
"""
_PATIENCE_S = 60.0
_REPEAT = 3


def start_s(directory: Path, policies: str) -> float:
    """From the command to the first 200 of /readyz."""
    base = ports.free_base()
    path = directory / "gateway.yaml"
    path.write_text(CONFIG.format(base=base, gateway_admin=base + 1, admin=base + 2, directory=directory) + policies)
    guardian = Guardian()
    env = {**os.environ, "EXTPROC_HOME": str(directory / "home"), "TMPDIR": str(directory)}
    command = (sys.executable, "-m", "extproc", "serve", "--config", str(path))
    service = Process("service", command, env, directory / "service.log", guardian)
    began_s = time.monotonic()
    try:
        service.start()
        service.wait_ready(lambda: answers_ok("127.0.0.1", base + 2, "/readyz"), _PATIENCE_S, threading.Event())
        return time.monotonic() - began_s
    finally:
        service.stop(5.0)
        guardian.close()


def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="start-"))
    try:
        report("without patterns", [start_s(directory, "") for _ in range(_REPEAT)])
        compiled = []
        for _ in range(_REPEAT):
            shutil.rmtree(directory / "home", ignore_errors=True)
            compiled.append(start_s(directory, PATTERNS))
        report("redact and guard, nothing kept", compiled)
        report("redact and guard, kept", [start_s(directory, PATTERNS) for _ in range(_REPEAT)])
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def report(what: str, took_s: list[float]) -> None:
    print(f"{what:<40}{min(took_s):>7.1f} s", flush=True)


if __name__ == "__main__":
    main()
