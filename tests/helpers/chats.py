"""A chat that the local stack serves, to be sent right or wrong."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extproc.stack.stack import Stack

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "Hello!"}
GOOD = {"model": "demo-llm", "messages": [USER], "max_tokens": 4}


def encoded(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


def port(stack: "Stack") -> int:
    return stack.config.gateway.listen.port
