"""What an error looks like to a client: OpenAI's shape, or KServe's on /v2/."""

from collections.abc import Mapping
from typing import Any


def assert_openai_error(headers: Mapping[str, str], body: Any, status: int, code: str | None) -> None:
    """All four keys, the type that goes with the status, JSON, an id, and when to come again where that is due."""
    error = body["error"]
    assert set(body) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert error["message"]
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    _assert_headers(headers, status)
    assert headers["x-request-id"]


def assert_kserve_error(headers: Mapping[str, str], body: Any, status: int) -> None:
    assert set(body) == {"error"}
    assert isinstance(body["error"], str)
    assert body["error"]
    assert headers["x-request-id"]
    _assert_headers(headers, status)


def _assert_headers(headers: Mapping[str, str], status: int) -> None:
    assert headers["content-type"] == "application/json"
    assert ("retry-after" in headers) == (status in {429, 503})
    if status in {429, 503}:
        assert 1 <= int(headers["retry-after"]) <= 120
