"""Addresses as the configuration writes them: `host:port`, `[v6]:port`, `unix:/path`.

Owns their syntax. Must not know: what listens there.
"""

import dataclasses
import ipaddress
import pathlib
import re
from typing import Annotated, Any

import pydantic

# sun_path is 108 bytes with its terminating zero; `.NN` of a worker's socket has to fit as well.
_MAX_UNIX_PATH_BYTES = 100
MAX_SOCKET_PATH_BYTES = 107
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_TCP = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")


@dataclasses.dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (name or IP address, without brackets) and a port; its `str` is what gRPC and URLs take."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_ip(self) -> bool:
        return _is_ip(self.host)

    @property
    def is_loopback(self) -> bool:
        """Nothing outside this machine reaches it."""
        return self.is_ip and ipaddress.ip_address(self.host).is_loopback


@dataclasses.dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a Unix socket; its `str` is what gRPC takes."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"

    def numbered(self, index: int) -> "UnixAddress":
        """The socket of worker `index`: `extproc.sock` becomes `extproc.1.sock`."""
        return self.beside(str(index))

    def beside(self, name: str) -> "UnixAddress":
        """Another socket in the same directory: `extproc.sock` becomes `extproc.NAME.sock`."""
        path = pathlib.PurePosixPath(self.path)
        return UnixAddress(str(path.with_name(f"{path.stem}.{name}{path.suffix}")))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _parse_unix(text: str) -> UnixAddress:
    path = text.removeprefix("unix:")
    # `unix:///path` is the URL spelling of the same thing.
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise ValueError("a Unix socket is written unix:/absolute/path")
    if len(path.encode("utf-8", "replace")) > _MAX_UNIX_PATH_BYTES:
        raise ValueError(f"the path of a Unix socket has at most {_MAX_UNIX_PATH_BYTES} bytes")
    return UnixAddress(path)


def _parse_tcp(text: str) -> TcpAddress:
    match = _TCP.fullmatch(text)
    if match is None:
        raise ValueError("write host:port or [ipv6]:port")
    port = int(match["port"])
    if not 0 < port < 65536:
        raise ValueError("the port is between 1 and 65535")
    host = match["v6"] or match["host"]
    if match["v6"] is not None:
        valid = _is_ip(host) and ":" in host
    elif re.fullmatch(r"[0-9.]+", host):
        valid = _is_ip(host)
    else:
        valid = _HOST_NAME.fullmatch(host) is not None
    if not valid:
        raise ValueError("the host is neither a name nor an IP address")
    return TcpAddress(host, port)


def parse_tcp(value: Any) -> TcpAddress:
    """Raises ValueError, with a message for the author of the configuration."""
    if isinstance(value, TcpAddress):
        return value
    if not isinstance(value, str):
        raise ValueError("write host:port or [ipv6]:port")
    return _parse_tcp(value)


def parse_listen(value: Any) -> TcpAddress | UnixAddress:
    """Raises ValueError, with a message for the author of the configuration."""
    if isinstance(value, TcpAddress | UnixAddress):
        return value
    if not isinstance(value, str):
        raise ValueError("write host:port, [ipv6]:port or unix:/path")
    return _parse_unix(value) if value.startswith("unix:") else _parse_tcp(value)


HostPort = Annotated[
    TcpAddress,
    pydantic.PlainValidator(parse_tcp, json_schema_input_type=str),
    pydantic.PlainSerializer(str, return_type=str),
    pydantic.WithJsonSchema({"type": "string", "pattern": r"^.+:[0-9]{1,5}$"}),
]
Listen = Annotated[
    TcpAddress | UnixAddress,
    pydantic.PlainValidator(parse_listen, json_schema_input_type=str),
    pydantic.PlainSerializer(str, return_type=str),
    pydantic.WithJsonSchema({"type": "string", "pattern": r"^(unix:/.+|.+:[0-9]{1,5})$"}),
]
