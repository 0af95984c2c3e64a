"""What one section of gateway.yaml says about another, checked: names that have to exist, and what fits what.

Must not know: lines and files; it names keys.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from extproc.config.address import TcpAddress
from extproc.config.document import Key
from extproc.config.identities import Credentials
from extproc.config.model import GatewayConfig
from extproc.config.models import Model, TiktokenTokenizer
from extproc.config.policy import FailureMode
from extproc.config.pools import CARRIES, DialectName, Pool
from extproc.config.routing_references import broken_experiments
from extproc.operation import Operation

Finding = tuple[Key, str]


def broken_references(config: GatewayConfig) -> Iterator[Finding]:
    """Every contradiction in `config`."""
    yield from _listeners(config)
    yield from _fail_open(config)
    yield from _keys(config)
    yield from _identities(config)
    for name, model in config.models.items():
        yield from _model(("models", name), model, config.pools)
    for name, pool in config.pools.items():
        yield from _pool(("pools", name), pool)
        if pool.idle_timeout_s > config.gateway.stream_idle_timeout_s:
            yield ("pools", name, "idle_timeout_s"), "never reached: gateway.stream_idle_timeout_s is shorter"
    yield from broken_experiments(config)


def _listeners(config: GatewayConfig) -> Iterator[Finding]:
    used: dict[TcpAddress, str] = {}
    for key, address in (
        (("gateway", "listen"), config.gateway.listen),
        (("gateway", "admin"), config.gateway.admin),
        (("service", "listen"), config.service.listen),
        (("service", "admin"), config.service.admin),
    ):
        if not isinstance(address, TcpAddress):
            continue
        if address in used:
            yield key, f"{used[address]} listens there already"
        used[address] = ".".join(key)


def _fail_open(config: GatewayConfig) -> Iterator[Finding]:
    pool, key = config.gateway.default_pool, ("gateway", "default_pool")
    if pool is None:
        if config.service.on_failure is FailureMode.OPEN:
            yield ("service", "on_failure"), "open needs gateway.default_pool"
    elif pool not in config.pools:
        yield key, f"there is no pool {pool}"
    elif config.pools[pool].dialect is not DialectName.OPENAI:
        yield key, "without the service nothing translates, so its dialect has to be openai"


def _keys(config: GatewayConfig) -> Iterator[Finding]:
    try:
        config.keys.secret  # noqa: B018 (reads and checks it)
    except (ValueError, OSError) as error:
        yield ("keys",), error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
    hashes = Counter(key.hash for key in config.keys.static.values())
    for name, key in config.keys.static.items():
        if hashes[key.hash] > 1:
            yield ("keys", "static", name, "hash"), "another key has the same hash"
        for index, model in enumerate(key.models):
            if model != "*" and model not in config.models:
                yield ("keys", "static", name, "models", index), f"there is no model {model}"


def _identities(config: GatewayConfig) -> Iterator[Finding]:
    identities = config.identities
    if identities.require is Credentials.BOTH and not identities.workloads:
        yield ("identities", "require"), "both needs workloads"
    kinds = (("workloads", identities.workloads), ("issuers", identities.issuers))
    for kind, entries in kinds:
        for name, entry in entries.items():
            for index, model in enumerate(entry.models):
                if model != "*" and model not in config.models:
                    yield ("identities", kind, name, "models", index), f"there is no model {model}"
    issuers: dict[str, str] = {}
    for name, issuer in identities.issuers.items():
        if issuers.setdefault(issuer.issuer, name) != name:
            yield ("identities", "issuers", name, "issuer"), f"{issuers[issuer.issuer]} is the same"


def _model(key: Key, model: Model, pools: Mapping[str, Pool]) -> Iterator[Finding]:
    if len(set(model.operations)) < len(model.operations):
        yield (*key, "operations"), "an operation is named twice"
    if model.max_output_tokens is not None and model.max_output_tokens > model.context_window:
        yield (*key, "max_output_tokens"), "more than the context_window"
    if isinstance(model.tokenizer, TiktokenTokenizer):
        yield from _tiktoken((*key, "tokenizer"), model.tokenizer)
    if model.pool not in pools:
        yield (*key, "pool"), f"there is no pool {model.pool}"
        return
    dialect = pools[model.pool].dialect
    for index, operation in enumerate(model.operations):
        if operation not in CARRIES[dialect]:
            able = ", ".join(sorted(CARRIES[dialect]))
            yield (*key, "operations", index), f"the {dialect} dialect of pool {model.pool} carries {able}"
    takes_one_text = dialect is DialectName.TRITON_GENERATE
    if takes_one_text and Operation.CHAT in model.operations and model.chat_template is None:
        yield key, "chat over triton-generate needs a chat_template, because the server takes one text"


def _tiktoken(key: Key, tokenizer: TiktokenTokenizer) -> Iterator[Finding]:
    if (tokenizer.encoding is None) == (tokenizer.file is None):
        yield key, "give encoding or file, one of them"
    if (tokenizer.file is None) != (tokenizer.pattern is None):
        yield key, "file and pattern go together"


def _pool(key: Key, pool: Pool) -> Iterator[Finding]:
    if not any(cluster.weight for cluster in pool.clusters.values()):
        yield (*key, "clusters"), "every weight is 0, so nothing would be served"
    if pool.consistent_hash is not None and pool.hashing is None:
        yield (*key, "consistent_hash"), f"balancing is {pool.balancing}, which has no keys"
    tls = pool.tls
    nameless = tls is not None and tls.server_name is None and tls.spiffe_id is None
    seen: dict[TcpAddress, str] = {}
    for name, cluster in pool.clusters.items():
        if cluster.metrics and len(cluster.metrics) != len(cluster.endpoints):
            yield (*key, "clusters", name, "metrics"), "one for each of `endpoints`, in their order"
        for index, endpoint in enumerate(cluster.endpoints):
            if endpoint in seen:
                yield (*key, "clusters", name, "endpoints", index), f"cluster {seen[endpoint]} has it already"
            seen[endpoint] = name
            if nameless and endpoint.is_ip:
                yield (*key, "tls"), f"{endpoint} is no name: give server_name or spiffe_id"
