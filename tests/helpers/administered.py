"""`extproc serve` as its operator meets it: the real process on a real Redis, asked over its admin port. No Envoy."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import textwrap
import threading
from collections.abc import Iterator

import httpx

from extproc.stack.guardian import Guardian
from extproc.stack.probe import answers_ok
from extproc.stack.process import Process
from tests.helpers import ports

AUDIT_SECRET = "an-audit-secret-of-enough-letters"
_READY_TIMEOUT_S = 90.0
_STOP_GRACE_S = 20.0


class AdministeredService:
    """Started by `administered`. `spool` is where its workers leave usage events."""

    def __init__(self, directory: pathlib.Path, redis_url: str, service: str) -> None:
        self.admin = ports.free_base()
        self.audit, self.spool = directory / "audit", directory / "spool"
        self.config_file = directory / "gateway.yaml"
        self.config_file.write_text(_text(directory, self.admin, redis_url, service))
        self._guardian = Guardian()
        command = (sys.executable, "-m", "extproc", "serve", "--config", str(self.config_file))
        (directory / "tmp").mkdir()
        environment = {**os.environ, "TMPDIR": str(directory / "tmp")}
        self.process = Process("service", command, environment, directory / "service.log", self._guardian)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.admin}"

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20)

    def start(self) -> None:
        self.process.start()
        ready = lambda: answers_ok("127.0.0.1", self.admin, "/readyz")  # noqa: E731
        self.process.wait_ready(ready, _READY_TIMEOUT_S, threading.Event())

    def close(self) -> None:
        self.process.stop(_STOP_GRACE_S)
        self._guardian.close()


@contextlib.contextmanager
def administered(directory: pathlib.Path, redis_url: str, service: str = "") -> Iterator[AdministeredService]:
    """One that runs. `service` is more of that section."""
    running = AdministeredService(directory, redis_url, service)
    try:
        running.start()
        yield running
    finally:
        running.close()


def _text(directory: pathlib.Path, admin: int, redis_url: str, service: str) -> str:
    host = "0.0.0.0" if "anywhere" in service else "127.0.0.1"
    return textwrap.dedent(f"""
        service:
          listen: unix:{directory}/extproc.sock
          admin: {host}:{admin}
          drain_timeout_s: 1
          {service.replace("anywhere", "")}
        redis: {{url: "{redis_url}", timeout_s: 2}}
        ledger: {{spool_dir: "{directory}/spool"}}
        audit: {{dir: "{directory}/audit", secret: {AUDIT_SECRET}}}
        keys:
          hash_secret: a-secret-for-tests-of-administration
          static:
            robot: {{hash: {"0" * 64}, team: robots, tier: pro}}
        models:
          talker: {{pool: up, operations: [chat], context_window: 8192, price: {_PRICE}}}
        pools:
          up: {{dialect: openai, model: m, clusters: {{only: {{endpoints: ["127.0.0.1:9"]}}}}}}
          other: {{dialect: openai, model: n, clusters: {{only: {{endpoints: ["127.0.0.1:9"]}}}}}}
        experiments:
          split:
            control: old
            arms: {{old: {{pool: up, weight: 90}}, new: {{pool: other, weight: 10}}}}
            guardrails: [{{metric: error_rate, worse_by: 0.05, min_requests: 10}}]
            guardrail_interval_s: 0.2
        policies:
          limit: {{budgets: {{team-money: {{amount: "2.5", per: month, scope: team}}}}}}
        """)


_PRICE = '{input_per_mtok: "1", output_per_mtok: "2", currency: EUR}'
