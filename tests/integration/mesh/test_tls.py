"""TLS between Envoy and model servers: both show certificates, and a wrong one serves nobody."""

import contextlib
import json
import pathlib
import ssl
from collections.abc import Iterator

import httpx
import pytest

from extproc import config
from extproc.errors import ConfigError
from tests.helpers.certificates import Authority
from tests.helpers.gateways import Gateway, configuration
from tests.helpers.processes import wait_until
from tests.helpers.scripted_upstream import ScriptedUpstream

SERVER_ID = "spiffe://cluster.local/ns/models/sa/triton"
POOLS = {
    "by-name": {"server_name": "triton.models.svc"},
    "by-spiffe-id": {"spiffe_id": SERVER_ID},
    "another-name": {"server_name": "other.models.svc"},
    "another-spiffe-id": {"spiffe_id": SERVER_ID + "-2"},
    "without-certificate": {"server_name": "triton.models.svc", "certificate_file": None, "key_file": None},
    "another-authority": {"server_name": "triton.models.svc", "ca_file": "other"},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("tls")
    authority, other = Authority(directory / "pki"), Authority(directory / "pki", "other")
    server = authority.issue("triton", dns=("triton.models.svc",), uris=(SERVER_ID,))
    client = authority.issue("gateway")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*server.pair)
    files = {"ca_file": authority.file, "certificate_file": client.certificate, "key_file": client.key}
    with contextlib.closing(ScriptedUpstream(tls=context)) as upstream:
        clusters = {"c": {"endpoints": [f"127.0.0.1:{upstream.port}"]}}
        pools = {}
        for name, tls in POOLS.items():
            wanted = {**files, **tls}
            wanted["ca_file"] = other.file if wanted["ca_file"] == "other" else wanted["ca_file"]
            pools[name] = {"dialect": "openai", "model": "x", "clusters": clusters, "tls": wanted}
        more = "\n".join(f"{name}: {json.dumps(pool)}" for name, pool in pools.items())
        running = Gateway(directory, configuration(9, 10, more=more))
        yield running
        running.close()


def _status(gateway: Gateway, pool: str) -> int:
    answer = httpx.post(f"http://127.0.0.1:{gateway.port}/", headers={"x-test-pool": pool}, content=b"{}", timeout=20)
    return answer.status_code


@pytest.mark.parametrize("pool", ["by-name", "by-spiffe-id"])
def test_servers_and_gateway_that_know_each_other_talk(gateway: Gateway, pool: str) -> None:
    assert wait_until(lambda: gateway.stat(f"cluster.{pool}/c.health_check.healthy") == 1)
    assert _status(gateway, pool) == 200


@pytest.mark.parametrize("pool", ["another-name", "another-spiffe-id", "without-certificate", "another-authority"])
def test_others_do_not(gateway: Gateway, pool: str) -> None:
    assert wait_until(lambda: gateway.stat(f"cluster.{pool}/c.health_check.failure") >= 1)
    assert _status(gateway, pool) == 503


def test_an_address_without_a_name_to_verify_is_refused() -> None:
    tls = "tls: {ca_file: /ca.pem}"
    with pytest.raises(ConfigError, match="no name"):
        config.parse(
            "keys: {hash_secret: 0123456789abcdef}\n"
            "models: {m: {pool: p, operations: [chat], context_window: 100}}\n"
            f'pools: {{p: {{dialect: openai, model: x, {tls}, clusters: {{c: {{endpoints: ["127.0.0.1:1"]}}}}}}}}\n',
            {},
            {},
        )


def test_the_names_of_endpoints_are_verified_where_none_is_given(gateway: Gateway, tmp_path: pathlib.Path) -> None:
    authority = Authority(tmp_path)
    client = authority.issue("client")
    for name, expected in (("localhost", 200), ("elsewhere", 503)):
        server = authority.issue(f"server-{name}", dns=(name,))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
        context.load_cert_chain(*server.pair)
        with contextlib.closing(ScriptedUpstream(tls=context)) as upstream:
            tls = {"ca_file": authority.file, "certificate_file": client.certificate, "key_file": client.key}
            clusters = {"c": {"endpoints": [f"localhost:{upstream.port}"]}}
            pool = {"dialect": "openai", "model": "x", "clusters": clusters, "tls": tls}
            (tmp_path / name).mkdir()
            with contextlib.closing(
                Gateway(tmp_path / name, configuration(9, 10, more=f"named: {json.dumps(pool)}"))
            ) as own:
                counter = "healthy" if expected == 200 else "failure"
                assert wait_until(
                    lambda own=own, counter=counter: own.stat(f"cluster.named/c.health_check.{counter}") >= 1
                )
                assert _status(own, "named") == expected
