"""What an upstream's error means for our client: status, type and message.

A client is blamed (400) only for what it can change; what the gateway or the model server did wrong is a 502,
503 or 504, whatever status the server chose. Knows the error bodies of OpenAI, vLLM, FastAPI and Triton.
"""

from __future__ import annotations

from typing import Any

import msgspec

from extproc.rejection import Rejection, overloaded, upstream_failed

_MESSAGE_LIMIT = 500
_UNREADY = ("unknown model", "is not ready", "is not healthy", "unavailable", "is not found")

_decoder = msgspec.json.Decoder()


def error_content(body: bytes) -> Any:
    """The JSON of an error's body, plain or as one event (Triton's `generate_stream`); None when it is neither."""
    try:
        return _decoder.decode(body.strip().removeprefix(b"data:"))
    except (ValueError, RecursionError):
        return None


def rejection_of(status: int, content: Any) -> Rejection:
    """The rejection for an error of the upstream: its HTTP status (or the one it names inside a stream) and JSON."""
    error = content.get("error", content) if isinstance(content, dict) else content
    message = _message(error)
    if status in (429, 503) or any(phrase in message for phrase in _UNREADY):
        return overloaded(message or "The model server is overloaded.", "upstream_overloaded")
    if status in (408, 504):
        return upstream_failed(message or "The model server timed out.", 504)
    if status in (400, 413, 422):
        param, code = (_text(error, "param"), _text(error, "code")) if isinstance(error, dict) else (None, None)
        text = message or "The model server refused the request."
        return Rejection(400, "invalid_request_error", code, text, param, "upstream_refused")
    if status < 500:
        # 401, 404 and the like are about the gateway's own call: details are for the operator, not the client.
        return upstream_failed(f"The model server refused the gateway's request ({status}).")
    return upstream_failed(message or f"The model server failed ({status}).")


def triton_rejection(status: int, content: Any) -> Rejection:
    """As `rejection_of`, for answers of Triton's own endpoints. There 400 covers every failure of a model, a dead
    Python stub included, and the gateway wrote the request: the client can't be to blame."""
    return rejection_of(500 if status in (400, 413, 422) else status, content)


def status_in(error: Any) -> int:
    """The HTTP status that an error object inside a 200 names, as vLLM's `code` does; 500 when it names none."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if type(code) is int and 400 <= code < 600 else 500


def _message(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail")
    if isinstance(error, list):
        error = "; ".join(str(item.get("msg", "")) for item in error if isinstance(item, dict))
    return " ".join(error.split())[:_MESSAGE_LIMIT] if isinstance(error, str) else ""


def _text(error: dict[str, Any], key: str) -> str | None:
    value = error.get(key)
    return value[:200] if isinstance(value, str) else None
