"""KServe v2 inference as a client API: `POST /v2/models/{m}[/versions/{v}]/infer`, JSON or with binary tensors.

The tensors pass through; texts in BYTES inputs can be read and replaced. The JSON header is written anew, so that
the server and the policies can't disagree about a key given twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from extproc.dialects.answer import AnswerEvent, Done, Failed, Opaque
from extproc.dialects.interface import (
    AnswerEncoder,
    AnswerIdentity,
    InferenceRequest,
    RequestHead,
    TextSegment,
    TokenTotals,
    Unread,
)
from extproc.dialects.openai_validation import refuse
from extproc.dialects.openai_wire import encode_json
from extproc.operation import Operation
from extproc.rejection import Rejection

HEADER_LENGTH = "inference-header-content-length"
"""Length in bytes of the JSON before the binary tensors; the header that Triton's own clients send."""

_MAX_DIMENSIONS = 8
_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]{1,18}))?/infer")
_NO_DATA = msgspec.Raw(b"null")


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = _NO_DATA
    parameters: dict[str, Any] | None = None


_headers = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tensor_fields = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_tensors = msgspec.json.Decoder(list[_Tensor])
_values = msgspec.json.Decoder()


def parse_path(path: str) -> tuple[str, str | None] | None:
    """Model name and version, None when it is another path."""
    match = _PATH.fullmatch(path)
    return None if match is None else (unquote(match[1]), match[2])


class InferRequest:
    """An inference request whose tensors stay bytes until someone asks for their texts."""

    __slots__ = (
        "_binary", "_elements", "_fields", "_tensors", "choices", "include_usage", "model", "operation",
        "output_limit_tokens", "stream", "version",
    )  # fmt: skip

    def __init__(self, model: str, version: str | None, header: bytes, binary: bytes) -> None:
        self.operation = Operation.INFER
        self.model = model
        self.version = version
        self.stream = False
        self.include_usage = False
        self.choices = 1
        self.output_limit_tokens: int | None = 0
        self._fields = _decode_header(header)
        self._tensors = _decode_tensors(self._fields)
        self._binary = _split_binary(self._tensors, binary)
        self._elements = {
            position: _elements(tensor, self._binary[position], f"inputs[{position}]")
            for position, tensor in enumerate(self._tensors)
            if tensor.datatype == "BYTES"
        }

    def texts(self) -> Sequence[TextSegment]:
        return [
            TextSegment("input", text, (position, index))
            for position, elements in self._elements.items()
            for index, text in enumerate(elements)
            if isinstance(text, str)
        ]

    def labels(self) -> Sequence[TextSegment]:
        return ()

    def unread(self) -> frozenset[Unread]:
        """Bytes that are no text. Tensors of numbers are what a model is fed, whatever they mean to it."""
        every = (element for elements in self._elements.values() for element in elements)
        return frozenset({Unread.MEDIA} if any(isinstance(element, bytes) for element in every) else ())

    def replace_texts(self, changed: Sequence[TextSegment]) -> None:
        """A changed tensor is written as JSON `data` if it came so, else in the binary form."""
        for segment in changed:
            position, index = segment.locator
            self._elements[int(position)][int(index)] = segment.text
        for position in {int(segment.locator[0]) for segment in changed}:
            self._write(position, self._elements[position])

    def essence(self) -> None:
        """Its answer is not read."""

    def body(self) -> tuple[bytes, int | None]:
        """The whole body, and the length of its JSON if binary tensors follow it."""
        header = encode_json(self._fields)
        binary = b"".join(data for data in self._binary if data is not None)
        if all(data is None for data in self._binary):
            return header, None
        return header + binary, len(header)

    def _write(self, position: int, elements: list[str | bytes]) -> None:
        fields = _tensor_fields.decode(self._fields["inputs"])
        if self._binary[position] is None:
            fields[position]["data"] = msgspec.Raw(encode_json(elements))
        else:
            packed = _pack_elements(elements)
            self._binary[position] = packed
            parameters = {**(self._tensors[position].parameters or {}), "binary_data_size": len(packed)}
            fields[position]["parameters"] = msgspec.Raw(encode_json(parameters))
        self._fields["inputs"] = msgspec.Raw(encode_json(fields))


def _decode_header(header: bytes) -> dict[str, msgspec.Raw]:
    try:
        fields = _headers.decode(header)
        if "inputs" not in fields:
            refuse("Missing required parameter: 'inputs'.", "inputs", "missing_required_parameter")
        # Written anew, so that of a key given twice only the last is left.
        fields["inputs"] = msgspec.Raw(encode_json(_tensor_fields.decode(fields["inputs"])))
    except RecursionError:
        refuse("The JSON of your request is nested too deeply.")
    except UnicodeDecodeError:
        refuse("The JSON of your request is not valid UTF-8.")
    except msgspec.ValidationError as error:
        refuse(f"Invalid inference request: {error}.", "inputs", "invalid_type")
    except ValueError as error:
        refuse(f"We could not parse the JSON of your request: {error}.")
    return fields


def _decode_tensors(fields: dict[str, msgspec.Raw]) -> list[_Tensor]:
    try:
        tensors = _tensors.decode(fields["inputs"])
    except (ValueError, RecursionError) as error:
        refuse(f"Invalid inference request: {error}.", "inputs", "invalid_type")
    if not tensors:
        refuse("Invalid 'inputs': empty array.", "inputs", "empty_array")
    return tensors


def _split_binary(tensors: list[_Tensor], binary: bytes) -> list[bytes | None]:
    """The binary part of each input, None for those with JSON data. Sizes must add up exactly."""
    parts: list[bytes | None] = []
    start = 0
    for index, tensor in enumerate(tensors):
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            parts.append(None)
            continue
        if type(size) is not int or not 0 <= size <= len(binary) - start or bytes(tensor.data) != b"null":
            param = f"inputs[{index}].parameters.binary_data_size"
            refuse(f"Invalid '{param}': it does not fit the binary data of the request.", param)
        parts.append(binary[start : start + size])
        start += size
    if start != len(binary):
        refuse("The binary data of the request is longer than its inputs say.", "inputs")
    return parts


def _elements(tensor: _Tensor, binary: bytes | None, param: str) -> list[str | bytes]:
    """The elements of a BYTES tensor; those that are not UTF-8 (images, say) stay bytes."""
    if binary is not None:
        return _unpack_elements(binary, param)
    try:
        value = _values.decode(tensor.data)
    except (ValueError, RecursionError) as error:
        refuse(f"Invalid '{param}.data': {error}.", f"{param}.data")
    return _leaves(value, f"{param}.data")


def _unpack_elements(data: bytes, param: str) -> list[str | bytes]:
    """Each element is a little-endian uint32 length, then that many bytes."""
    elements: list[str | bytes] = []
    start = 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        if start + 4 > len(data) or end > len(data):
            refuse(f"The elements of '{param}' do not fit its size.", param)
        element = data[start + 4 : end]
        try:
            elements.append(element.decode())
        except UnicodeDecodeError:
            elements.append(element)
        start = end
    return elements


def _pack_elements(elements: list[str | bytes]) -> bytes:
    encoded = [element.encode() if isinstance(element, str) else element for element in elements]
    return b"".join(len(data).to_bytes(4, "little") + data for data in encoded)


def _leaves(value: Any, param: str) -> list[str | bytes]:
    """JSON `data` may be nested as its shape is."""
    level = value if isinstance(value, list) else [value]
    for _ in range(_MAX_DIMENSIONS):
        if not any(isinstance(item, list) for item in level):
            break
        level = [leaf for item in level for leaf in (item if isinstance(item, list) else [item])]
    if not all(isinstance(leaf, str) for leaf in level):
        refuse(f"Invalid type for '{param}': expected strings.", param, "invalid_type")
    return level


class InferEncoder:
    """The server's answer as it came; the gateway adds nothing but errors of its own."""

    content_type = None

    def __init__(self) -> None:
        self._over = False

    def encode(self, events: Sequence[AnswerEvent]) -> bytes:
        parts: list[bytes] = []
        for event in events:
            if self._over:
                break
            if isinstance(event, Opaque):
                parts.append(event.raw)
            elif isinstance(event, Failed):
                parts.append(kserve_error(event.rejection))
            self._over = isinstance(event, Failed | Done)
        return b"".join(parts)


def kserve_error(rejection: Rejection) -> bytes:
    return encode_json({"error": rejection.message})


class KserveInferApi:
    """See the module."""

    operation = Operation.INFER

    def parse(self, head: RequestHead, body: bytes) -> InferenceRequest:
        """Raises InvalidRequest."""
        found = parse_path(head.path.partition("?")[0].removesuffix("/"))
        assert found is not None, "resolve() comes first"
        length = head.headers.get(HEADER_LENGTH)
        if length is None:
            return InferRequest(*found, body, b"")
        if not (length.isascii() and length.isdigit() and len(length) <= 12 and int(length) <= len(body)):
            refuse(f"Invalid header '{HEADER_LENGTH}': it does not fit the body.", HEADER_LENGTH)
        return InferRequest(*found, body[: int(length)], body[int(length) :])

    def encoder(self, request: InferenceRequest, identity: AnswerIdentity, totals: TokenTotals) -> AnswerEncoder:
        return InferEncoder()

    def error(self, rejection: Rejection) -> bytes:
        """Triton's shape."""
        return kserve_error(rejection)


INFER = KserveInferApi()
