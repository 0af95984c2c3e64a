"""What is known about one exchange: write-once facts, each with one writer named beside it, and how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from extproc.dialects.feedback import Feedback
from extproc.dialects.interface import ClientApi, InferenceRequest, RequestHead, Route, TokenTotals
from extproc.policies.admit_place import Place
from extproc.policies.cache_exchange import Caching
from extproc.policies.guard_result import GuardResult
from extproc.policies.limit_hold import Hold
from extproc.policies.redact_exchange import Redaction
from extproc.policies.scan import Scan
from extproc.policies.semantic_exchange import Asked
from extproc.principal import ANONYMOUS, Principal
from extproc.routing.catalog import Model, Pool
from extproc.routing.destinations import Destination
from extproc.telemetry.spans import Trace
from extproc.tokenization import ModelTokenizer

if TYPE_CHECKING:
    from extproc.policies.filter_content import Filtering


class Progress(Struct):
    """How far the exchange has come. Written by the journey, but for `totals` and `text`: those are count_tokens's.

    Times are monotonic seconds. `step_s` is the time spent in each policy so far.
    """

    status: int = 0
    overhead_s: float = 0.0
    first_bytes_s: float | None = None
    last_bytes_s: float | None = None
    text: list[str] = []
    totals: TokenTotals = field(default_factory=TokenTotals)
    upstream_usage: bool = False
    step_s: dict[str, float] = {}


class Served(Struct):
    """Who answers in place of the pool that was asked first. `body_headers` say what its body is."""

    pool: Pool
    model: Model
    body_headers: tuple[tuple[str, str], ...] = ()


class RequestContext:
    """One exchange as the policies see it.

    Its attributes are facts: each is written once, by the writer named beside it, and a second write raises
    AttributeError, as does reading a fact that is not known yet and has no default.
    """

    # Plain attributes guarded on writing, because they are read fifty times an exchange and written ten.
    route: Route  # journey
    body: bytes = b""  # journey
    reachable: frozenset[str] | None = None  # journey: the pools Envoy can route it to; None: it did not say
    principal: Principal = ANONYMOUS  # identify
    request: InferenceRequest  # journey (parsing)
    model: Model  # journey (parsing); route, where another than the one asked for serves it
    scan: Scan | None = None  # scan: the encoder at work on its texts; None: there is no encoder
    pool: Pool | None = None  # route
    served: Served | None = None  # fallback: who answers, because `pool` did not
    destination: Destination | None = None  # route: where it goes, and who said so
    prompt_tokens: int | None = None  # count_tokens
    default_output_tokens: int = 0  # count_tokens
    filtering: Filtering | None = None  # content_filter: what it did, and its answer in the making
    guard: GuardResult | None = None  # guard: how much the request looks like an attack
    affinity_key: str | None = None  # affinity: which endpoint of the pool it keeps to; None: any
    admitted: bool = False  # account: no request policy before it has refused the request, so it goes to the model
    caching: Caching | None = None  # cache: what the caches do for it; None: it is nothing for a cache
    charged_as_used: bool = False  # limit: a known answer costs what it would have cost from a model
    asked: Asked | None = None  # semantic_cache: its question, where answers can be found by it
    governed: bool = False  # limit: its caller is known, so that its attempt counts
    held: Hold | None = None  # limit: what it reserved
    place: Place | None = None  # admit: where it stood in the line before its pool; None: there is none
    redaction: Redaction | None = None  # redact: its placeholders and its counts
    trace: Trace | None = None  # journey: what to tell of it, if Envoy samples it
    rated: Feedback | None = None  # journey: what a user says of an answer
    reason: str = ""  # journey: why it was refused or failed; limit, redact: that it was cut

    def __init__(self, head: RequestHead, arrived_s: float, arrived_wall_s: float) -> None:
        self.__dict__.update(
            head=head,
            request_id=head.headers.get("x-request-id", ""),
            arrived_s=arrived_s,
            arrived_wall_s=arrived_wall_s,
            progress=Progress(),
            degraded=set(),
            not_for_others=set(),
            prompt_counts={},
            response_headers=[],
        )

    head: RequestHead
    request_id: str
    arrived_s: float
    arrived_wall_s: float
    progress: Progress
    degraded: set[str]  # names of the policies that had to do without a dependency; sent as x-extproc-degraded
    not_for_others: set[str]  # names of the policies that forbid to keep the answer: it has in it what is one client's
    prompt_counts: dict[ModelTokenizer, int]  # prompt_tokens
    response_headers: list[tuple[str, str]]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            raise AttributeError(f"the fact `{name}` is already known")
        self.__dict__[name] = value

    def serve_by(self, model: Model) -> None:
        """`route` alone, and at most once: the one fact that a second writer may correct, so that all who come later
        know but one model."""
        self.__dict__["model"] = model

    @property
    def arm(self) -> str:
        """`experiment/arm`; empty for a request that is in no experiment."""
        taken = None if self.destination is None else self.destination.taken
        return "" if taken is None else taken.label

    @property
    def api(self) -> ClientApi:
        """What the client speaks. A route without an API is refused, or answered on its headers."""
        assert self.route.api is not None, "what comes on no path of ours gets no further than its headers"
        return self.route.api

    @property
    def operation(self) -> str:
        """What is asked for, for labels: an operation, `models`, `feedback`, or `none` where the path is not ours."""
        if self.route.api is not None:
            return self.route.api.operation
        if self.route.takes_feedback:
            return "feedback"
        return "models" if self.route.answered_here else "none"

    @property
    def stream(self) -> bool:
        """The client asked for a stream. False while the request is not parsed."""
        request = self.__dict__.get("request")
        return request is not None and request.stream

    @property
    def serving_pool(self) -> Pool | None:
        """The pool that answers, or is asked to."""
        return self.pool if self.served is None else self.served.pool

    @property
    def serving_model(self) -> Model:
        """The model that answers, or is asked to: the one asked for, unless a fallback serves another."""
        return self.model if self.served is None else self.served.model

    @property
    def model_name(self) -> str:
        """The public model, empty while it is not known to be one of ours: a closed set, fit for labels."""
        model = self.__dict__.get("model")
        return "" if model is None else model.name
