"""The whole of gateway.yaml as one frozen value.

Owns the top level and the sections about this gateway itself; models, pools and policies have their own
files. Must not know: YAML, the environment, Envoy.
"""

import enum
import functools
import hashlib
from collections.abc import Mapping
from typing import Annotated

import pydantic

from extproc.config.address import HostPort, Listen, TcpAddress, UnixAddress
from extproc.config.admin import token_of
from extproc.config.audit import Audit
from extproc.config.encoder import Encoder
from extproc.config.experiments import Experiment
from extproc.config.identities import Identities, ModelsAllowed, Team
from extproc.config.ledger import Ledger
from extproc.config.model_meshes import ModelMesh
from extproc.config.models import Model
from extproc.config.policy import FailureMode, PolicySettings
from extproc.config.pools import Pool
from extproc.config.section import ExistingFile, ModelName, Name, Seconds, Section
from extproc.config.tier import Tier
from extproc.config.tls import ServerTls

_MIN_SECRET_CHARS = 16
_VERSION_CHARS = 12


class Polling(Section):
    """How the model servers' metrics are read, where `pools` say that there are any."""

    interval_s: Annotated[float, pydantic.Field(ge=0.1, le=60)] = 1.0
    """Time between two readings of a server, and the longest that one may take."""

    stale_after_s: Annotated[float, pydantic.Field(ge=0.5, le=600)] = 5.0
    """What a server said is forgotten after so long without another word."""

    @pydantic.model_validator(mode="after")
    def _read_again_in_time(self) -> "Polling":
        if self.stale_after_s <= self.interval_s:
            raise ValueError("stale_after_s is longer than interval_s")
        return self


class LogLevel(enum.StrEnum):
    """The least important messages that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class GrpcServer(enum.StrEnum):
    """What takes Envoy's gRPC calls in a worker."""

    GRPCIO = "grpcio"
    ASYNCIO = "asyncio"


class Gateway(Section):
    """The Envoy side."""

    listen: HostPort = TcpAddress("127.0.0.1", 10000)
    """Where clients connect."""

    tls: ServerTls | None = None
    """TLS for clients; without it they speak plainly, as where a mesh's own proxy ends TLS."""

    admin: HostPort = TcpAddress("127.0.0.1", 9901)
    """Envoy's admin interface; it can stop Envoy, so keep it on loopback."""

    max_body_bytes: Annotated[int, pydantic.Field(ge=1024, le=1 << 30)] = 10 * 1024 * 1024
    """Largest request body."""

    max_connections: Annotated[int, pydantic.Field(ge=1)] = 10_000
    """Most client connections at a time; further ones are closed at once."""

    max_concurrent_streams: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 100
    """Most requests in flight on one HTTP/2 connection."""

    request_headers_timeout_s: Seconds = 10.0
    """A client has this long to send its request's headers."""

    request_timeout_s: Seconds = 60.0
    """A client has this long to send its whole request; the answer may take longer."""

    stream_idle_timeout_s: Seconds = 300.0
    """A request on which nothing moves in either direction for so long is ended."""

    connection_idle_timeout_s: Seconds = 3600.0
    """A client connection without requests is closed after so long."""

    trusted_hops: Annotated[int, pydantic.Field(ge=0, le=16)] = 0
    """How many proxies in front of this one append to `x-forwarded-for` and can be believed."""

    access_log: Annotated[str, pydantic.StringConstraints(pattern=r"^/\S+$")] | None = "/dev/stdout"
    """File for one line of JSON per request; null for none."""

    fallback_listen: Listen | None = None
    """Where the service asks Envoy for a pool's `fallback`, or whether a model just loaded is reached: `unix:/path`,
    or a port of a loopback address. Who can connect there needs no key. By default a Unix socket beside
    `service.listen`, if that is one."""

    default_pool: Name | None = None
    """Where requests go, unseen by the service, when it is gone and `service.on_failure` is `open`."""


class Service(Section):
    """The external processor: `extproc serve`."""

    listen: Listen = UnixAddress("/tmp/extproc/extproc.sock")  # noqa: S108 (a documented default; deployments set their own)
    """Where Envoy reaches it; with several workers each has a numbered socket, or they share the port."""

    workers: Annotated[int, pydantic.Field(ge=1, le=256)] = 1
    """Worker processes."""

    server: GrpcServer = GrpcServer.GRPCIO
    """What takes Envoy's calls in a worker: `grpcio` is gRPC's own server, tried by the world; it takes most of a
    worker's CPU and some 100 bytes of memory per request for good. `asyncio` is ours: a third of the CPU, memory that
    stays flat, but young. Envoy's configuration is the same for both."""

    admin: HostPort = TcpAddress("127.0.0.1", 9002)
    """Metrics, health, the live view and the admin API over HTTP (docs/admin.md)."""

    admin_token: pydantic.SecretStr | None = None
    """What the admin API asks for as a bearer token, at least 16 characters. Without one it is open to this machine, if
    `admin` is on loopback, and shut if not; metrics and health are always open."""

    admin_token_file: ExistingFile | None = None
    """A file that holds it instead."""

    on_failure: FailureMode = FailureMode.CLOSED
    """What Envoy does with requests when the service is gone: `closed` refuses them with 503, `open` sends
    them, unchecked and uncounted, to `gateway.default_pool`."""

    notice_s: Annotated[float, pydantic.Field(ge=0, le=60)] = 2.0
    """After SIGTERM it says for so long that it is not healthy, and takes requests all the same: Envoys, which ask
    every second, turn to other replicas before it stops listening. Of no use where there are none."""

    drain_timeout_s: Seconds = 30.0
    """Streams in flight have this long to end after that."""

    @pydantic.model_validator(mode="after")
    def _has_a_good_token(self) -> "Service":
        assert self.token is None or self.token
        return self

    @functools.cached_property
    def token(self) -> bytes | None:
        """The admin token, from wherever it is kept; None without one."""
        return token_of(self.admin_token, self.admin_token_file)

    @property
    def addresses(self) -> tuple[TcpAddress | UnixAddress, ...]:
        """Where the workers listen, in their order; one entry where they share it."""
        if self.workers == 1 or isinstance(self.listen, TcpAddress):
            return (self.listen,)
        return tuple(self.listen.numbered(index) for index in range(self.workers))


def _check_redis_url(value: pydantic.SecretStr) -> pydantic.SecretStr:
    if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("a Redis URL begins with redis://, rediss:// or unix://")
    return value


class Redis(Section):
    """The shared store: keys, limits, caches, ledger."""

    url: Annotated[pydantic.SecretStr, pydantic.AfterValidator(_check_redis_url)] = pydantic.SecretStr(
        "redis://127.0.0.1:6379"
    )
    """`redis://[:password@]host:port[/db]`, `rediss://` for TLS, `unix:///path` for a socket."""

    timeout_s: Seconds = 0.25
    """A command unanswered for so long has failed."""

    cache_timeout_s: Seconds = 0.25
    """A lookup in a cache unanswered for so long found nothing: the request goes on without."""


class StaticKey(Section):
    """An API key that works without Redis."""

    hash: Annotated[str, pydantic.StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """The keyed hash of the key, 64 lower-case hex digits, as `extproc keys create` prints it."""

    team: Team
    """The team it belongs to."""

    tier: Tier = Tier.FREE
    """How much it may use: `free`, `basic`, `pro`, `enterprise`."""

    models: ModelsAllowed = ("*",)
    """The models it may ask for: keys of `models`, or `*` for all."""


class Keys(Section):
    """API keys. Only keyed hashes are ever stored."""

    hash_secret: pydantic.SecretStr | None = None
    """The secret of the keyed hash, at least 16 characters; changing it invalidates every key."""

    hash_secret_file: ExistingFile | None = None
    """A file that holds it instead."""

    static: Mapping[Name, StaticKey] = {}
    """Keys by name that need no Redis."""

    @functools.cached_property
    def secret(self) -> bytes:
        """The secret, from wherever it is kept. Raises ValueError if there is none or it is too short."""
        if (self.hash_secret is None) == (self.hash_secret_file is None):
            raise ValueError("give hash_secret or hash_secret_file, one of them")
        if self.hash_secret is not None:
            secret = self.hash_secret.get_secret_value().encode()
        elif self.hash_secret_file is not None:
            secret = self.hash_secret_file.read_bytes().strip()
        if len(secret) < _MIN_SECRET_CHARS:
            raise ValueError(f"the secret has at least {_MIN_SECRET_CHARS} characters")
        return secret


class Tracing(Section):
    """OpenTelemetry traces."""

    otlp_grpc: HostPort
    """Where an OpenTelemetry collector takes OTLP over gRPC."""

    sampling_percent: Annotated[float, pydantic.Field(ge=0, le=100)] = 1.0
    """Share of the requests traced whose caller has not decided already (`traceparent`)."""


class Telemetry(Section):
    """What the gateway says about itself."""

    tracing: Tracing | None = None
    """Traces; none without this section."""

    log_level: LogLevel = LogLevel.INFO
    """Least important messages of the service that are logged."""


class GatewayConfig(Section):
    """gateway.yaml."""

    gateway: Gateway = Gateway()
    """The Envoy side."""

    service: Service = Service()
    """The external processor: `extproc serve`."""

    redis: Redis = Redis()
    """The shared store."""

    keys: Keys = Keys()
    """API keys."""

    identities: Identities = Identities()
    """Callers with certificates and tokens."""

    ledger: Ledger = Ledger()
    """The record of every request, for billing."""

    polling: Polling = Polling()
    """The model servers' metrics."""

    encoder: Encoder = Encoder()
    """The small model that several policies share."""

    audit: Audit = Audit()
    """The record of every decision that changed something, and of every admin action."""

    models: Annotated[Mapping[ModelName, Model], pydantic.Field(min_length=1)]
    """Public model names."""

    pools: Annotated[Mapping[Name, Pool], pydantic.Field(min_length=1)]
    """Where they are served."""

    model_meshes: Mapping[Name, ModelMesh] = {}
    """Servers that load the models of their pools when a request needs one (docs/model-mesh.md)."""

    experiments: Mapping[Name, Experiment] = {}
    """A/B tests over pools or models; rules send requests to them."""

    policies: Mapping[str, PolicySettings] = {}
    """Settings of each policy that has any; one that is not named has its defaults."""

    telemetry: Telemetry = Telemetry()
    """Traces and logs."""

    @property
    def fallback_address(self) -> TcpAddress | UnixAddress | None:
        """Where the service asks Envoy for another pool; None: nobody needs it, or nobody said where."""
        if not self.model_meshes and not any(pool.fallback for pool in self.pools.values()):
            return None
        if self.gateway.fallback_listen is not None or isinstance(self.service.listen, TcpAddress):
            return self.gateway.fallback_listen
        return self.service.listen.beside("fallback")

    @functools.cached_property
    def version(self) -> str:
        """Names the content in logs and metrics. Secrets do not go into it, so it can be shown to anyone."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:_VERSION_CHARS]
