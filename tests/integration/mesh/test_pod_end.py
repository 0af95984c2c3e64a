"""What the chart has Envoy do before it ends: the command itself, on a real Envoy."""

import subprocess

import httpx

from tests.helpers.gateways import Gateway
from tests.helpers.manifests import containers, helm


def test_clients_are_told_to_connect_elsewhere_while_they_still_are_served(own_gateway: Gateway) -> None:
    values = {"envoy": {"drainSeconds": 0}}
    (envoy,) = (container for _, container in containers(helm(values)) if container["name"] == "envoy")
    bash, option, script = envoy["lifecycle"]["preStop"]["exec"]["command"]
    script = script.replace("/9901", f"/{own_gateway.admin_port}")
    with httpx.Client(base_url=f"http://127.0.0.1:{own_gateway.port}", timeout=20) as client:
        assert "connection" not in client.post("/", content=b"{}").headers
        done = subprocess.run([bash, option, script], capture_output=True, timeout=20, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        for _ in range(3):  # on the connection there was, and on those that come
            answer = client.post("/", content=b"{}")
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert client.get("/v2/health/ready").status_code == 503
