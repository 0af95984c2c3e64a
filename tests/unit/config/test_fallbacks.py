"""Fallbacks of pools: what may stand in for what, and where the service asks for it."""

import pytest

from extproc import config
from extproc.config.address import TcpAddress, UnixAddress
from extproc.errors import ConfigError

TEXT = """
keys: {{hash_secret: 0123456789abcdef}}
service: {{listen: "{listen}"}}
{gateway}
models:
  large: {{pool: a, operations: [chat], context_window: 100, price: {{output_per_mtok: "1"}}}}
  small:
    pool: b
    operations: [chat]
    tokenizer: {{type: tiktoken, encoding: cl100k_base}}
    chat_template: chatml
    context_window: 100
    price: {{currency: {currency}}}
pools:
  a: {{dialect: openai, model: x, clusters: {{c: {{endpoints: ["h:1"]}}}}, fallback: {fallback}}}
  b: {{dialect: triton-generate, model: x, clusters: {{c: {{endpoints: ["h:2"]}}}}}}
  k: {{dialect: kserve, model: x, clusters: {{c: {{endpoints: ["h:3"]}}}}}}
  o: {{dialect: openai, model: x, clusters: {{c: {{endpoints: ["h:4"]}}}}}}
"""
GOOD = "[{pool: o}, {pool: b, public_model: small}]"


def text(fallback: str = GOOD, listen: str = "unix:/run/x.sock", gateway: str = "", currency: str = "USD") -> str:
    return TEXT.format(fallback=fallback, listen=listen, gateway=gateway, currency=currency)


def problems(given: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(given, {}, {})
    return [f"{problem.key}: {problem.message}" for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("listen", "gateway", "address"),
    [
        ("unix:/run/x.sock", "", UnixAddress("/run/x.fallback.sock")),
        ("unix:/run/x.sock", "gateway: {fallback_listen: 'unix:/run/y'}", UnixAddress("/run/y")),
        ("127.0.0.1:1", "gateway: {fallback_listen: '127.0.0.1:2'}", TcpAddress("127.0.0.1", 2)),
        ("127.0.0.1:1", "gateway: {fallback_listen: '[::1]:2'}", TcpAddress("::1", 2)),
    ],
)
def test_where_the_service_asks(listen: str, gateway: str, address: TcpAddress | UnixAddress) -> None:
    assert config.parse(text(GOOD, listen, gateway), {}, {}).fallback_address == address
    assert config.parse(text("[]", listen, gateway), {}, {}).fallback_address is None


@pytest.mark.parametrize(
    ("listen", "gateway", "problem"),
    [
        ("127.0.0.1:1", "", "a pool has a fallback, and service.listen is no Unix socket beside which it could be"),
        (
            "unix:/run/x.sock",
            "gateway: {fallback_listen: '0.0.0.0:2'}",
            "who can connect there needs no key: unix:/path, or an address of loopback",
        ),
        (
            "unix:/run/x.sock",
            "gateway: {fallback_listen: 'localhost:2'}",
            "who can connect there needs no key: unix:/path, or an address of loopback",
        ),
        ("unix:/" + "x" * 99, "", "beside service.listen its path would be too long: give one"),
        ("127.0.0.1:9", "gateway: {fallback_listen: '127.0.0.1:9901'}", "gateway.admin listens there already"),
    ],
)
def test_where_it_can_not_ask(listen: str, gateway: str, problem: str) -> None:
    assert problems(text(GOOD, listen, gateway)) == [f"gateway.fallback_listen: {problem}"]


@pytest.mark.parametrize(
    ("fallback", "problem"),
    [
        ("[{pool: nowhere}]", "[0].pool: there is no pool nowhere"),
        ("[{pool: o}, {pool: o}]", "[1].pool: it is named twice"),
        ("[{pool: a}]", "[0].pool: it is the pool itself"),
        ("[{pool: o, public_model: nobody}]", "[0].public_model: there is no model nobody"),
        ("[{pool: k}]", "[0].pool: its kserve dialect carries nothing that is asked of model large"),
        (
            "[{pool: b}]",
            "[0].pool: chat over triton-generate needs a tokenizer and a chat_template, which large has not",
        ),
    ],
)
def test_what_can_not_stand_in(fallback: str, problem: str) -> None:
    assert problems(text(fallback)) == [f"pools.a.fallback{problem}"]


def test_prices_are_in_one_currency() -> None:
    expected = "pools.a.fallback[1].public_model: its price is in another currency than that of large"
    assert problems(text(currency="EUR")) == [expected]
