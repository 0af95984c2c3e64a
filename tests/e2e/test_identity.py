"""Callers who show a certificate or a token: Envoy verifies, the service maps, and nobody else can say who he is."""

import contextlib
import dataclasses
import json
import ssl
from collections.abc import Iterator

import httpx
import pytest

from tests.helpers.certificates import Authority, Certificate, TokenIssuer
from tests.helpers.redis import RedisServer
from tests.helpers.scripted_upstream import ScriptedUpstream
from tests.helpers.services import KEY, ServedGateway, Upstreams, served
from tests.helpers.usage import usage_of

SEARCH = "spiffe://cluster.local/ns/search/sa/indexer"
ADMIN = "spiffe://cluster.local/ns/platform/sa/admin"
BODY = {"model": "openai", "messages": [{"role": "user", "content": "Hello!"}]}


@dataclasses.dataclass
class World:
    gateway: ServedGateway
    upstream: ScriptedUpstream
    authority: Authority
    issuer: TokenIssuer

    def ask(self, certificate: Certificate | None = None, model: str = "openai", **headers: str) -> httpx.Response:
        """One chat; `headers` with underscores for hyphens."""
        context = ssl.create_default_context(cafile=self.authority.file)
        if certificate is not None:
            context.load_cert_chain(*certificate.pair)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"https://127.0.0.1:{self.gateway.port}/v1/chat/completions"
        with httpx.Client(verify=context, timeout=20) as client:
            return client.post(url, json={**BODY, "model": model}, headers=named)

    def caller(self, answer: httpx.Response) -> tuple[str, str, str]:
        """Principal, team and tier on record for it."""
        assert answer.status_code == 200, answer.text
        event = usage_of(self.gateway.service.log, answer.headers["x-request-id"])
        return event["principal"], event["team"], event["tier"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from _world(tmp_path_factory, "either", "optional")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A certificate is a must, and a key as well."""
    yield from _world(tmp_path_factory, "both", "required")


def _world(tmp_path_factory: pytest.TempPathFactory, require: str, client_certificates: str) -> Iterator[World]:
    directory = tmp_path_factory.mktemp(require)
    authority, issuer = Authority(directory / "pki"), TokenIssuer("https://issuer.example")
    own = authority.issue("gateway", local=True)
    (directory / "jwks.json").write_text(issuer.jwks())
    tls = {
        "certificate_file": own.certificate,
        "key_file": own.key,
        "client_ca_file": authority.file,
        "client_certificates": client_certificates,
    }
    identities = {
        "require": require,
        "workloads": {
            "tests": {"spiffe_id": "spiffe://cluster.local/ns/tests/sa/*", "team": "tests", "tier": "basic"},
            "search": {"spiffe_id": SEARCH, "team": "search", "tier": "pro", "models": ["openai"]},
        },
        "issuers": {
            "company": {
                "issuer": issuer.issuer,
                "audiences": ["gateway"],
                "jwks_file": "jwks.json",
                "team": "people",
                "team_claim": "department",
                "tier_claim": "tier",
            }
        },
    }
    with (
        contextlib.closing(RedisServer(directory)),
        contextlib.closing(ScriptedUpstream()) as upstream,
        served(
            directory,
            Upstreams(openai=upstream.port, triton=upstream.port),
            policies=f"identities: {json.dumps(identities)}\n",
            tls=json.dumps(tls),
        ) as gateway,
    ):
        yield World(gateway, upstream, authority, issuer)


def test_a_workload_is_who_its_certificate_says(world: World) -> None:
    indexer = world.authority.issue("indexer", uris=(SEARCH,))
    assert world.caller(world.ask(indexer)) == (SEARCH, "search", "pro")
    refused = world.ask(indexer, model="triton")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")


@pytest.mark.parametrize(
    "forged",
    [
        f"URI={ADMIN}",
        f"By=spiffe://x/y;Hash=00;URI={SEARCH}",
        f'Subject="CN=x";URI={SEARCH}',
        f"uri={SEARCH},URI={SEARCH}",
    ],
)
def test_a_forged_certificate_header_is_nobody(world: World, forged: str) -> None:
    assert world.ask(x_forwarded_client_cert=forged).status_code == 401


def test_a_forged_certificate_header_does_not_add_to_a_real_certificate(world: World) -> None:
    stranger = world.authority.issue("stranger", uris=("spiffe://cluster.local/ns/other/sa/x",))
    assert world.ask(stranger, x_forwarded_client_cert=f"URI={SEARCH}").status_code == 401
    indexer = world.authority.issue("indexer", uris=(SEARCH,))
    answer = world.ask(indexer, x_forwarded_client_cert=f"URI={ADMIN}")
    assert world.caller(answer) == (SEARCH, "search", "pro")


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("https://cluster.local/ns/search/sa/indexer",),
        (SEARCH, ADMIN),
        (f"{ADMIN};URI={SEARCH}",),
        (f"{ADMIN},URI={SEARCH}",),
        (SEARCH + "/more",),
        (SEARCH.upper(),),
    ],
)
def test_a_certificate_without_exactly_one_known_name_is_nobody(world: World, uris: tuple[str, ...]) -> None:
    assert world.ask(world.authority.issue("odd", uris=uris)).status_code == 401


def test_a_certificate_of_another_authority_ends_the_connection(world: World) -> None:
    other = Authority(world.gateway.directory / "other", "other").issue("indexer", uris=(SEARCH,))
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        world.ask(other)


def test_the_certificate_goes_no_further(world: World) -> None:
    indexer = world.authority.issue("indexer", uris=(SEARCH,))
    assert world.ask(indexer).status_code == 200
    assert "x-forwarded-client-cert" not in dict(world.upstream.seen[-1].headers)


def test_a_key_counts_before_a_certificate_and_a_wrong_one_is_refused(world: World) -> None:
    indexer = world.authority.issue("indexer", uris=(SEARCH,))
    assert world.caller(world.ask(indexer, authorization=f"Bearer {KEY}")) == ("every", "tests", "enterprise")
    assert world.ask(indexer, authorization="Bearer sk-xp-wrong").status_code == 401


def test_a_token_names_its_caller(world: World) -> None:
    token = world.issuer.token("ada@example.com", department="research", tier="pro")
    answer = world.ask(authorization=f"Bearer {token}")
    assert world.caller(answer) == ("token:company:ada@example.com", "research", "pro")
    assert "authorization" not in dict(world.upstream.seen[-1].headers)
    assert world.caller(world.ask(authorization=f"Bearer {world.issuer.token('bob')}"))[1:] == ("people", "free")


def test_a_token_that_is_not_good_is_nobody(world: World) -> None:
    good = world.issuer.token("ada")
    head, payload, signature = good.split(".")
    bad = {
        "expired": world.issuer.token("ada", life_s=-600),
        "for others": world.issuer.token("ada", audience="elsewhere"),
        "of another's key": TokenIssuer(world.issuer.issuer).token("ada"),
        "of another issuer": TokenIssuer("https://other.example").token("ada"),
        "changed": f"{head}.{payload[:-2]}AA.{signature}",
        "unsigned": f"eyJhbGciOiJub25lIn0.{payload}.",
        "without an end": world.issuer.token("ada", exp=None),
        "of a tier that is none": world.issuer.token("ada", tier="emperor"),
        "of a team that is none": world.issuer.token("ada", department="a b"),
        "of nobody": world.issuer.token(""),
    }
    statuses = {name: world.ask(authorization=f"Bearer {token}").status_code for name, token in bad.items()}
    assert statuses == dict.fromkeys(bad, 401)
    answer = world.ask(authorization=f"Bearer {bad['expired']}")
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_both_are_asked_for_and_of_one_team(strict: World) -> None:
    tester = strict.authority.issue("tester", uris=("spiffe://cluster.local/ns/tests/sa/runner",))
    indexer = strict.authority.issue("indexer", uris=(SEARCH,))
    with_key = {"authorization": f"Bearer {KEY}"}
    assert strict.caller(strict.ask(tester, authorization=f"Bearer {KEY}")) == ("every", "tests", "enterprise")
    assert strict.ask(tester).status_code == 401
    assert strict.ask(indexer, authorization=f"Bearer {KEY}").status_code == 401
    stranger = strict.authority.issue("stranger")
    assert strict.ask(stranger, authorization=f"Bearer {KEY}").status_code == 401
    token = strict.issuer.token("ada", department="search")
    assert strict.caller(strict.ask(indexer, authorization=f"Bearer {token}"))[0] == "token:company:ada"
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        strict.ask(**with_key)
