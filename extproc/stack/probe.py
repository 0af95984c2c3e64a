"""Whether a component answers on its HTTP port. Must not know: which one it is."""

import http.client

_TIMEOUT_S = 2.0


def answers_ok(host: str, port: int, path: str) -> bool:
    """Whether GET `path` is answered with 200. Never goes through a proxy."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
