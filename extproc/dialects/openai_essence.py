"""What of an OpenAI request can change its answer, in one form for requests that ask for the same.

Two requests with the same essence, for the same model as it is deployed, ask for the same answer. Owns which parameters
are known to matter, which are known not to; of a request with any other, or one whose answer `AnswerEvent`s can't
carry whole, there is none. Nested values stay as they are, order of keys included: chat templates write them into the
prompt as they come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_IRRELEVANT = frozenset(
    {
        "model", "stream", "stream_options", "user", "metadata", "store", "service_tier", "safety_identifier",
        "prompt_cache_key", "prompt_cache_retention", "encoding_format",
    }
)  # fmt: skip
"""`model` is known to the gateway by more than this name; the others say how the answer travels or who asks."""

_RELEVANT = frozenset(
    {
        "messages", "prompt", "input", "n", "best_of", "max_tokens", "max_completion_tokens", "temperature", "top_p",
        "stop", "seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias", "tools",
        "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "verbosity", "echo", "suffix",
        "dimensions", "prediction", "modalities",
        "top_k", "min_p", "repetition_penalty", "length_penalty", "min_tokens", "ignore_eos", "stop_token_ids",
        "bad_words", "include_stop_str_in_output", "skip_special_tokens", "spaces_between_special_tokens",
        "truncate_prompt_tokens", "add_special_tokens", "add_generation_prompt", "continue_final_message",
        "documents", "chat_template", "chat_template_kwargs", "guided_json", "guided_regex", "guided_choice",
        "guided_grammar", "structured_outputs",
    }
)  # fmt: skip
"""OpenAI's, then vLLM's."""


def essence(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of a body that was validated; None: nobody can tell."""
    kept = {name: _plain(value) for name, value in fields.items() if value is not None and name not in _IRRELEVANT}
    if not kept.keys() <= _RELEVANT or kept.get("modalities", ["text"]) != ["text"]:
        return None
    if any(tool["type"] != "function" for tool in kept.get("tools", ())):
        return None
    kept.pop("modalities", None)
    if "messages" in kept:
        kept["messages"] = [_sorted(message) for message in kept["messages"]]
    return _sorted(kept)


def _sorted(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in sorted(fields) if fields[name] is not None}


def _plain(value: Any) -> Any:
    """0.0 and 0 are one number to every server."""
    return int(value) if type(value) is float and value.is_integer() else value
