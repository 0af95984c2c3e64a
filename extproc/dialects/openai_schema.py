"""What OpenAI's API accepts, as types: the request bodies of chat completions, completions and embeddings.

Owns types, ranges and enumerations of the parameters we know; unknown parameters and unknown message fields
are not its business (they go to `openai` pools untouched). Used for validation only: the decoded dict stays the
request. Ranges are those of OpenAI's API reference.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

_Text = Annotated[str, Meta(min_length=1)]
_Probability = Annotated[float, Meta(ge=0, le=1)]
_Temperature = Annotated[float, Meta(ge=0, le=2)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Choices = Annotated[int, Meta(ge=1, le=128)]
_Cap = Annotated[int, Meta(ge=1, le=2**31 - 1)]
_Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Stop = str | Annotated[list[str], Meta(max_length=4)] | None
_Bias = Annotated[float, Meta(ge=-100, le=100)]
_TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]

MAX_INPUTS = 2048
"""Most inputs of one embeddings request, and most prompts of one completions request."""


class TextPart(Struct, tag="text", tag_field="type"):
    text: str


class RefusalPart(Struct, tag="refusal", tag_field="type"):
    refusal: str


class MediaUrl(Struct):
    url: str


class ImagePart(Struct, tag="image_url", tag_field="type"):
    image_url: MediaUrl


class VideoPart(Struct, tag="video_url", tag_field="type"):
    """Not OpenAI's: vLLM's."""

    video_url: MediaUrl


class AudioUrlPart(Struct, tag="audio_url", tag_field="type"):
    """Not OpenAI's: vLLM's."""

    audio_url: MediaUrl


class InputAudio(Struct):
    data: str
    format: str


class AudioPart(Struct, tag="input_audio", tag_field="type"):
    input_audio: InputAudio


class FilePart(Struct, tag="file", tag_field="type"):
    file: dict[str, Any]


_TextParts = Annotated[list[TextPart], Meta(min_length=1)]
_UserParts = Annotated[list[TextPart | ImagePart | AudioPart | FilePart | VideoPart | AudioUrlPart], Meta(min_length=1)]
_AssistantParts = Annotated[list[TextPart | RefusalPart], Meta(min_length=1)]


class SystemMessage(Struct, tag="system", tag_field="role"):
    content: str | _TextParts
    name: str | None = None


class DeveloperMessage(Struct, tag="developer", tag_field="role"):
    content: str | _TextParts
    name: str | None = None


class UserMessage(Struct, tag="user", tag_field="role"):
    content: str | _UserParts
    name: str | None = None


class CalledFunction(Struct):
    name: str
    arguments: str


class ToolCall(Struct):
    id: str
    type: Literal["function", "custom"]
    function: CalledFunction | None = None


class AssistantMessage(Struct, tag="assistant", tag_field="role"):
    content: str | _AssistantParts | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(min_length=1)] | None = None
    function_call: CalledFunction | None = None
    audio: dict[str, Any] | None = None


class ToolMessage(Struct, tag="tool", tag_field="role"):
    content: str | _TextParts
    tool_call_id: str


class FunctionMessage(Struct, tag="function", tag_field="role"):
    content: str | None
    name: str


_Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage


class StreamOptions(Struct):
    include_usage: bool | None = None


class ToolFunction(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=128)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct):
    type: Literal["function", "custom"]
    function: ToolFunction | None = None


class ResponseFormat(Struct):
    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: dict[str, Any] | None = None


class ChatBody(Struct):
    """`POST /v1/chat/completions`."""

    model: _Text
    messages: Annotated[list[_Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: _Choices | None = None
    max_tokens: _Cap | None = None
    max_completion_tokens: _Cap | None = None
    temperature: _Temperature | None = None
    top_p: _Probability | None = None
    stop: _Stop = None
    seed: _Seed | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    logit_bias: dict[str, _Bias] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    modalities: list[str] | None = None
    user: str | None = None


class CompletionBody(Struct):
    """`POST /v1/completions`. `prompt` is checked by hand: msgspec takes one array type per union."""

    model: _Text
    prompt: str | list[Any]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: _Choices | None = None
    best_of: Annotated[int, Meta(ge=1, le=20)] | None = None
    max_tokens: _Cap | None = None
    temperature: _Temperature | None = None
    top_p: _Probability | None = None
    stop: _Stop = None
    seed: _Seed | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    logit_bias: dict[str, _Bias] | None = None
    echo: bool | None = None
    suffix: str | None = None
    user: str | None = None


class EmbeddingsBody(Struct):
    """`POST /v1/embeddings`."""

    model: _Text
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: _Cap | None = None
    user: str | None = None


TokenArray = list[_TokenId]
