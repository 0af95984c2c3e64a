"""Our trimmed messages are wire-compatible with Envoy's: every field we declare, both ways, by envoy_data_plane."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from extproc._pb.envoy.config.core.v3 import base_pb2
from extproc._pb.envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from extproc._pb.envoy.service.ext_proc.v3 import external_processor_pb2
from extproc._pb.envoy.type.v3 import http_status_pb2

FILES = (base_pb2, processing_mode_pb2, external_processor_pb2, http_status_pb2)
SAMPLES: dict[int, Any] = {
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_BYTES: b"\xff\x00bytes",
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_DOUBLE: 1.5,
}


def declared() -> list[tuple[Descriptor, FieldDescriptor]]:
    messages = [m for file in FILES for m in file.DESCRIPTOR.message_types_by_name.values()]
    return [(message, field) for message in messages for field in message.fields]


def with_only(message: Descriptor, field: FieldDescriptor) -> Message:
    """An instance in which `field` alone is set, nested messages down to a leaf."""
    instance = GetMessageClass(message)()
    if field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct":
        value: Any = GetMessageClass(field.message_type)()
        value.update({"number": 1.5, "text": "t", "inner": {"flag": True}})
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(instance, field.name)["key"].CopyFrom(with_only(field.message_type, field.message_type.fields[1]).value)
        return instance
    elif field.message_type is not None:
        nested = field.message_type.fields
        value = with_only(field.message_type, nested[0]) if nested else GetMessageClass(field.message_type)()
    elif field.enum_type is not None:
        value = max(field.enum_type.values_by_number)
    else:
        value = SAMPLES[field.type]
    if field.is_repeated:
        getattr(instance, field.name).append(value)
    elif field.message_type is not None:
        getattr(instance, field.name).CopyFrom(value)
        getattr(instance, field.name).SetInParent()
    else:
        setattr(instance, field.name, value)
    return instance


def theirs(message: Descriptor) -> Any:
    """Envoy's own message of the same full name."""
    package, _, name = message.full_name.rpartition(".")
    return getattr(importlib.import_module(f"envoy_data_plane.{package}"), name)


def unknown_fields(message: Any) -> bytes:
    """What a betterproto message could not place, nested messages included."""
    nested = [getattr(message, name) for name in message._betterproto.sorted_field_names]
    flat = [item for value in nested for item in (value if isinstance(value, list) else [value])]
    own = bytes(message._unknown_fields)
    return own + b"".join(unknown_fields(value) for value in flat if hasattr(value, "_betterproto"))


@pytest.mark.parametrize(("message", "field"), declared(), ids=lambda d: d.name)
def test_field_is_envoys(message: Descriptor, field: FieldDescriptor) -> None:
    ours = with_only(message, field)
    wire = ours.SerializeToString()
    parsed = theirs(message).parse(wire)
    assert unknown_fields(parsed) == b""
    assert getattr(parsed, field.name), f"{message.full_name}.{field.name} arrived empty"
    assert type(ours).FromString(bytes(parsed)) == ours
    assert bytes(parsed) == wire


def test_service_is_envoys() -> None:
    (method,) = external_processor_pb2.DESCRIPTOR.services_by_name["ExternalProcessor"].methods
    assert method.containing_service.full_name == "envoy.service.ext_proc.v3.ExternalProcessor"
    assert (method.name, method.client_streaming, method.server_streaming) == ("Process", True, True)


def test_an_unnamed_status_survives() -> None:
    status = http_status_pb2.HttpStatus(code=429)  # type: ignore[arg-type]  # proto3 enums are open
    assert http_status_pb2.HttpStatus.FromString(status.SerializeToString()).code == 429
