"""What a policy is: small protocols, of which it implements those it needs, and the verdicts it may give.

A policy is constructed once per configuration version as `Policy(settings, services)` and shared by all exchanges, so
it keeps nothing about one exchange: that belongs in the `RequestContext`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from msgspec import Struct

from extproc.admission import Admissions, OpenDoor
from extproc.audit.record import AuditTrail, NoTrail
from extproc.caching import AnswerStore, SemanticIndex
from extproc.clock import Clock
from extproc.config.identities import Identities
from extproc.config.policy import PolicySettings
from extproc.detection.database import Keep
from extproc.dialects.answer import AnswerEvent
from extproc.dialects.feedback import Feedback
from extproc.dialects.interface import TokenTotals
from extproc.inference.interface import Encoder, PairVerifier
from extproc.limits import Limiter
from extproc.model_mesh import AlwaysThere, ModelUses
from extproc.policies.context import RequestContext
from extproc.principal import Principal
from extproc.rejection import Rejection
from extproc.routing.catalog import Catalog
from extproc.routing.endpoint_book import EndpointBook
from extproc.routing.experiments import Changes, NoChanges
from extproc.routing.pressure import Calm, Pressure
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.spans import NoTracer, Tracer


class Continue(Struct, frozen=True):
    """Go on to the next policy."""


class Respond(Struct, frozen=True):
    """The answer is known without a model: send it, skip the rest of the request's journey."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Answer(Struct, frozen=True):
    """The model's answer is known without asking it: replay it in the client's own format, streamed or whole as asked.

    `events` end with `Done` and carry no upstream's bytes (`raw`). `totals` are the answer's own tokens, for the usage
    that the client sees. `headers` go with it; `x-extproc-cache` and `age` come from the facts, not from here.
    """

    events: Sequence[AnswerEvent]
    totals: TokenTotals
    age_s: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()


class Reject(Struct, frozen=True):
    """The request is refused."""

    rejection: Rejection


Verdict = Continue | Respond | Answer | Reject
CONTINUE = Continue()


class Termination(StrEnum):
    """How an exchange ended; exactly one holds."""

    COMPLETED = "completed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    UPSTREAM_ERROR = "upstream_error"
    INTERNAL_ERROR = "internal_error"


class Policy(Protocol):
    """Every policy: `name` is its section under `policies:` in gateway.yaml."""

    name: ClassVar[str]
    settings_type: ClassVar[type[PolicySettings]]

    def __init__(self, settings: Any, services: Services) -> None: ...


class HeadPolicy(Policy, Protocol):
    """Decides on the request's headers alone, before its body is buffered."""

    async def on_head(self, ctx: RequestContext) -> Verdict: ...


class RequestPolicy(Policy, Protocol):
    """Decides on the whole, parsed request."""

    async def on_request(self, ctx: RequestContext) -> Verdict: ...


class KnownAnswerPolicy(Policy, Protocol):
    """Has a say when another policy knows the answer (`Answer`) and the rest of the request's journey is skipped."""

    async def on_known_answer(self, ctx: RequestContext, answer: Answer) -> Continue | Reject: ...


class ReplyPolicy(Policy, Protocol):
    """Has a last word before the gateway answers by itself: a refusal, or an answer that needs no model. It can add
    headers; the answer stands."""

    async def on_reply(self, ctx: RequestContext) -> None: ...


class FeedbackPolicy(Policy, Protocol):
    """Learns what a user thought of an answer."""

    async def on_feedback(self, ctx: RequestContext, feedback: Feedback) -> None: ...


class EscalatePolicy(Policy, Protocol):
    """Has a say before another model is asked because the answer of a cascade's small one, whose tokens are known by
    now, was not good enough. After a Reject nobody else is asked."""

    async def on_escalate(self, ctx: RequestContext) -> Continue | Reject: ...


class AnswerPolicy(Policy, Protocol):
    """Reads or rewrites the answer as it passes; a Reject ends it there.

    May hold events back and release them later. `Done` is the last event it will ever see of a whole answer; one that
    breaks off never shows it.
    """

    async def on_answer(self, ctx: RequestContext, events: Sequence[AnswerEvent]) -> Sequence[AnswerEvent] | Reject: ...


class ClosePolicy(Policy, Protocol):
    """Runs exactly once when the exchange is over, whatever its end, and even though the client may be gone."""

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None: ...


class KeyDirectory(Protocol):
    """Who an API key belongs to."""

    async def authenticate(self, key: str) -> Principal | None:
        """None: unknown or revoked. Raises DependencyError when nobody can tell."""

    @property
    def degraded(self) -> bool:
        """The store is lost; answers come from what was known before."""


class UsageRecorder(Protocol):
    """Where usage events go."""

    def opened(self, exchange_id: str, facts: Mapping[str, Any]) -> None:
        """What is known of an exchange so far: its event, should this process be killed before it is closed."""

    def closed(self, exchange_id: str, event: Mapping[str, Any], owed: Sequence[int] = ()) -> None:
        """The exchange's one usage event (proto: extproc.v1.UsageEvent). `owed`: what its reservation is yet to be
        settled to, by the supervisor should this process be killed before it is `settled`."""

    def settled(self, exchange_id: str) -> None:
        """Nothing is owed any more."""


@dataclass(frozen=True, slots=True)
class Services:
    """What policies may ask for. Another dependency is one more field here, filled in `app`.

    `encoder` is None unless a policy that is on says `uses_encoder`, `verifier` unless one says `uses_verifier`.
    `databases` keeps compiled patterns from one start to the next. `answers` is where the caches keep answers,
    `neighbours` where they find them by their questions, and `answers_version` stands for all settings of policies that
    can change an answer.
    """

    catalog: Catalog
    keys: KeyDirectory
    metrics: Metrics
    usage: UsageRecorder
    limiter: Limiter
    config_version: str
    answers: AnswerStore
    neighbours: SemanticIndex
    answers_version: str = ""
    identities: Identities = field(default_factory=Identities)
    audit: AuditTrail = field(default_factory=NoTrail)
    encoder: Encoder | None = None
    verifier: PairVerifier | None = None
    clock: Clock = field(default_factory=Clock)
    pressure: Pressure = field(default_factory=Calm)
    admissions: Admissions = field(default_factory=OpenDoor)
    model_uses: ModelUses = field(default_factory=AlwaysThere)
    tracer: Tracer = field(default_factory=NoTracer)
    experiments: Changes = field(default_factory=NoChanges)
    endpoints: EndpointBook = field(default_factory=EndpointBook)
    databases: Keep | None = None
