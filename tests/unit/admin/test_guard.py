"""Who may use the admin interface."""

import pytest

from extproc.admin.guard import Guard
from extproc.config.address import TcpAddress
from extproc.config.admin import is_loopback

TOKEN = "a-token-of-enough-letters"
HERE = {"host": "localhost:9002"}
API = "/api/v1/keys"


def code(guard: Guard, path: str = API, **headers: str) -> str | None:
    refused = guard.refusal(path, HERE | {name.replace("_", "-"): value for name, value in headers.items()})
    return None if refused is None else refused.code


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize("token", [None, TOKEN.encode()])
def test_monitoring_needs_no_token(path: str, loopback: bool, token: bytes | None) -> None:
    assert code(Guard(loopback, token), path, host="pod.example:9002") is None


@pytest.mark.parametrize("path", [API, "/config", "/", "/live.js", "/openapi.json", "/metrics/", "/healthz?x"])
def test_elsewhere_without_a_token_there_is_nothing_else(path: str) -> None:
    assert code(Guard(loopback=False, token=None), path) == "admin_token_required"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9002", "127.0.0.1:9002", "127.3.2.1", "[::1]:9002"])
def test_on_loopback_this_machine_needs_none(host: str) -> None:
    assert code(Guard(loopback=True, token=None), host=host) is None


@pytest.mark.parametrize(
    "host", ["", "rebound.example:9002", "127.0.0.1.example", "localhost.example", "10.0.0.1", "[", "localhost@evil"]
)
def test_a_rebound_name_is_not_this_machine(host: str) -> None:
    assert code(Guard(loopback=True, token=None), host=host) == "foreign_host"


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("", "invalid_admin_token"),
        (TOKEN, "invalid_admin_token"),
        (f"Basic {TOKEN}", "invalid_admin_token"),
        (f"Bearer {TOKEN}x", "invalid_admin_token"),
        (f"Bearer {TOKEN[:-1]}", "invalid_admin_token"),
        ("Bearer \udcff", "invalid_admin_token"),
        (f"Bearer {TOKEN}", None),
        (f"bearer  {TOKEN} ", None),
    ],
)
def test_a_token_has_to_be_shown_where_there_is_one(loopback: bool, shown: str, expected: str | None) -> None:
    assert code(Guard(loopback, TOKEN.encode()), authorization=shown) == expected


@pytest.mark.parametrize("path", ["/", "/live.css", "/live.js", "/charts.js", "/panels.js", "/icon.svg"])
def test_the_page_itself_has_no_data_and_asks_for_the_token(path: str) -> None:
    assert code(Guard(loopback=False, token=TOKEN.encode()), path) is None


@pytest.mark.parametrize("guard", [Guard(True, None), Guard(False, TOKEN.encode())])
def test_another_sites_page_may_not_ask(guard: Guard) -> None:
    shown = {"authorization": f"Bearer {TOKEN}"}
    assert code(guard, origin="http://localhost:9002", **shown) is None
    assert code(guard, sec_fetch_site="same-origin", **shown) is None
    assert code(guard, origin="http://evil.example", **shown) == "foreign_origin"
    assert code(guard, origin="http://localhost:8000", **shown) == "foreign_origin"
    assert code(guard, origin="null", **shown) == "foreign_origin"
    assert code(guard, sec_fetch_site="cross-site", **shown) == "foreign_origin"
    assert code(guard, sec_fetch_site="same-site", **shown) == "foreign_origin"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "10.1.2.3", "gateway", "localhost.example")],
)
def test_what_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(TcpAddress(host, 9002)) is expected
