"""Redis over TLS, with a certificate of ours: what docs/deploy.md says to write into `redis.url`."""

import contextlib
import pathlib

import pytest

from extproc.stores.connection import bounded, connect
from extproc.stores.errors import StoreUnavailable
from tests.helpers.certificates import Authority, Certificate
from tests.helpers.ports import free_base
from tests.helpers.redis import RedisServer


def _url(port: int, authority: Authority, certificate: Certificate | None) -> str:
    url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.file}"
    return url if certificate is None else f"{url}&ssl_certfile={certificate.certificate}&ssl_keyfile={certificate.key}"


async def test_certificates_are_shown_and_verified_on_both_sides(tmp_path: pathlib.Path) -> None:
    authority, other = Authority(tmp_path / "pki"), Authority(tmp_path / "pki", "other")
    server, ours = authority.issue("redis", local=True), authority.issue("extproc")
    port = free_base()
    options = ("--tls-port", str(port), "--tls-cert-file", server.certificate, "--tls-key-file", server.key)
    with contextlib.closing(RedisServer(tmp_path, *options, "--tls-ca-cert-file", authority.file)):
        client = connect(_url(port, authority, ours), 2.0)
        assert await client.ping()
        await client.aclose()
        for refused in (_url(port, authority, None), _url(port, other, ours)):
            client = connect(refused, 2.0)
            with pytest.raises(StoreUnavailable):
                async with bounded(4.0):
                    await client.ping()
            await client.aclose()
