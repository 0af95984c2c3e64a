"""Which client API a method and path mean, and which dialect a name means. The one place that knows them all.

Paths are matched exactly, never as patterns over client input; of a client's path only a model's name (looked up
among ours) and a version (digits) are ever used.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

from extproc import __version__
from extproc.dialects import kserve_api, kserve_queries, openai_api
from extproc.dialects.interface import ClientApi, PoolDialect, RequestHead, Route
from extproc.dialects.kserve_pool import KservePool
from extproc.dialects.openai_pool import OpenAiPool
from extproc.dialects.openai_wire import encode_json
from extproc.dialects.triton_generate import TritonGeneratePool
from extproc.rejection import Rejection, method_not_allowed, unknown_path

_APIS: dict[str, ClientApi] = {
    "/v1/chat/completions": openai_api.CHAT,
    "/v1/completions": openai_api.COMPLETIONS,
    "/v1/embeddings": openai_api.EMBEDDINGS,
}
_DIALECTS: dict[str, PoolDialect] = {
    "openai": OpenAiPool(),
    "triton-generate": TritonGeneratePool(),
    "kserve": KservePool(),
}
_MODELS = "/v1/models"
_SERVER = "/v2"
_FEEDBACK = "/v1/feedback"


def resolve(head: RequestHead) -> Route:
    """What is asked for; a path or method we don't serve is a route with a rejection."""
    path = _path(head)
    api = _APIS.get(path)
    if api is None and kserve_api.parse_path(path) is not None:
        api = kserve_api.INFER
    if api is None and kserve_queries.parse_path(path) is not None:
        return Route(api=kserve_queries.QUERY, rejection=_unless(head, path, "GET"))
    if api is not None:
        return Route(api=api, rejection=_unless(head, path, "POST"))
    if path == _FEEDBACK:
        return Route(takes_feedback=True, rejection=_unless(head, path, "POST"))
    if path == _SERVER:
        return Route(describes_server=True, rejection=_unless(head, path, "GET"))
    if path == _MODELS:
        return Route(lists_models=True, rejection=_unless(head, path, "GET"))
    if path.startswith(f"{_MODELS}/"):
        # Names like `org/model` come as two segments or as one with an encoded slash.
        return Route(model_id=unquote(path[len(_MODELS) + 1 :]), rejection=_unless(head, path, "GET"))
    return Route(rejection=unknown_path(head.method, _shown(path)))


def pool_dialect(name: str) -> PoolDialect:
    """The dialect called `name` in gateway.yaml. Raises KeyError."""
    return _DIALECTS[name]


def error_body(source: RequestHead | ClientApi, rejection: Rejection) -> bytes:
    """The rejection in the shape of the client's API, known or guessed from its path."""
    if not isinstance(source, RequestHead):
        return source.error(rejection)
    api: ClientApi = kserve_api.INFER if f"{_path(source)}/".startswith(f"{_SERVER}/") else openai_api.CHAT
    return api.error(rejection)


def models_body(models: Iterable[tuple[str, int]]) -> bytes:
    """The answer to `GET /v1/models`, from pairs of name and Unix time of creation."""
    return encode_json({"object": "list", "data": [_model(name, created_s) for name, created_s in models]})


def model_body(name: str, created_s: int) -> bytes:
    """The answer to `GET /v1/models/{name}`."""
    return encode_json(_model(name, created_s))


def server_body() -> bytes:
    """The answer to KServe's `GET /v2`. Of its extensions the gateway passes on one."""
    return encode_json({"name": "extproc", "version": __version__, "extensions": ["binary_tensor_data"]})


def _model(name: str, created_s: int) -> dict[str, str | int]:
    return {"id": name, "object": "model", "created": created_s, "owned_by": "extproc"}


def _path(head: RequestHead) -> str:
    """Without query and without one trailing slash."""
    path = head.path.partition("?")[0]
    return path[:-1] if path.endswith("/") and len(path) > 1 else path


def _shown(path: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in path[:200])


def _unless(head: RequestHead, path: str, method: str) -> Rejection | None:
    return None if head.method == method else method_not_allowed(head.method, _shown(path), method)
