"""What is known about one exchange: write-once facts, each with one writer named beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, overload

from extproc.dialects.interface import InferenceRequest, RequestHead, Route, TokenTotals
from extproc.principal import ANONYMOUS, Principal
from extproc.routing.catalog import Model, Pool

T = TypeVar("T")
_MISSING: Any = object()


class Fact(Generic[T]):
    """An attribute that is written once. Reading it before raises AttributeError unless it has a default."""

    def __init__(self, default: T = _MISSING) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._slot = "_" + name

    @overload
    def __get__(self, instance: None, owner: type) -> Fact[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Fact[T] | T:
        if instance is None:
            return self
        value: T = instance.__dict__.get(self._slot, self._default)
        if value is _MISSING:
            raise AttributeError(f"the fact `{self._name}` is not known yet")
        return value

    def __set__(self, instance: object, value: T) -> None:
        if self._slot in instance.__dict__:
            raise AttributeError(f"the fact `{self._name}` is already known")
        instance.__dict__[self._slot] = value


@dataclass(slots=True)
class AnswerProgress:
    """How far the answer has come. Written by the journey, but for `totals` and `text`: those are count_tokens's."""

    status: int = 0
    first_bytes_s: float | None = None
    last_bytes_s: float | None = None
    text: list[str] = field(default_factory=list)
    totals: TokenTotals = field(default_factory=TokenTotals)
    upstream_usage: bool = False


class RequestContext:
    """One exchange as the policies see it. Times are monotonic seconds unless they say `wall`."""

    route = Fact[Route]()  # journey
    body = Fact[bytes](b"")  # journey
    principal = Fact[Principal](ANONYMOUS)  # identify
    request = Fact[InferenceRequest]()  # journey (parsing)
    model = Fact[Model]()  # journey (parsing)
    pool = Fact[Pool | None](None)  # route
    prompt_tokens = Fact[int | None](None)  # count_tokens
    default_output_tokens = Fact[int](0)  # count_tokens
    reason = Fact[str]("")  # journey: why it was refused or failed

    def __init__(self, head: RequestHead, arrived_s: float, arrived_wall_s: float) -> None:
        self.head = head
        self.request_id = head.headers.get("x-request-id", "")
        self.arrived_s = arrived_s
        self.arrived_wall_s = arrived_wall_s
        self.answer = AnswerProgress()
        self.overhead_s = 0.0
        self.degraded: set[str] = set()
        self.response_headers: list[tuple[str, str]] = []
        self.step_s: dict[str, float] = {}

    @property
    def operation(self) -> str:
        """What is asked for, for labels: an operation, `models`, or `none` where the path is not ours."""
        if self.route.api is not None:
            return str(self.route.api.operation)
        return "models" if self.route.lists_models or self.route.model_id is not None else "none"

    @property
    def stream(self) -> bool:
        """The client asked for a stream. False while the request is not parsed."""
        request = self.__dict__.get("_request")
        return bool(request is not None and request.stream)

    @property
    def model_name(self) -> str:
        """The public model, empty while it is not known to be one of ours: a closed set, fit for labels."""
        model = self.__dict__.get("_model")
        return model.name if model is not None else ""

    def timed(self, name: str, clock: Callable[[], float], since_s: float) -> None:
        """Add to the time this exchange spent in step `name`."""
        self.step_s[name] = self.step_s.get(name, 0.0) + clock() - since_s
