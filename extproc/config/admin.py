"""Where the admin interface listens and what it asks of those who use it.

Must not know: HTTP. What is asked of whom is decided in `admin.guard`.
"""

from __future__ import annotations

import ipaddress
import pathlib

import pydantic

from extproc.config.address import TcpAddress

_MIN_TOKEN_CHARS = 16


def token_of(token: pydantic.SecretStr | None, file: pathlib.Path | None) -> bytes | None:
    """The token, from wherever it is kept; None without one. Raises ValueError for two of them, and a weak one."""
    if token is not None and file is not None:
        raise ValueError("give admin_token or admin_token_file, one of them")
    if token is not None:
        found = token.get_secret_value().encode()
    elif file is not None:
        found = file.read_bytes().strip()
    else:
        return None
    if len(found) < _MIN_TOKEN_CHARS or not found.isascii() or not found.decode().isprintable() or b" " in found:
        raise ValueError(f"the admin token has at least {_MIN_TOKEN_CHARS} ASCII characters, and no spaces")
    return found


def is_loopback(address: TcpAddress) -> bool:
    """Only processes of this machine (or pod) can connect there."""
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host.rstrip(".").lower() == "localhost"
