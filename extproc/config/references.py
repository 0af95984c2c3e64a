"""What one section of gateway.yaml says about another, checked: names that have to exist, and what fits what.

Must not know: lines and files; it names keys.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from extproc.config.address import MAX_SOCKET_PATH_BYTES, TcpAddress
from extproc.config.balancing import Balancing
from extproc.config.cascade_references import broken_cascades
from extproc.config.document import Key
from extproc.config.identities import Credentials
from extproc.config.model import GatewayConfig
from extproc.config.model_mesh_references import broken_meshes
from extproc.config.models import Model, TiktokenTokenizer
from extproc.config.policy import FailureMode
from extproc.config.pools import CARRIES, DialectName, Fallback, Pool
from extproc.config.routing_references import broken_experiments
from extproc.operation import Operation

Finding = tuple[Key, str]


def broken_references(config: GatewayConfig) -> Iterator[Finding]:
    """Every contradiction in `config`."""
    yield from _listeners(config)
    yield from _fail_open(config)
    yield from _keys(config)
    yield from _identities(config)
    yield from _fallback_listen(config)
    for name, model in config.models.items():
        yield from _model(("models", name), model, config.pools)
    for name, pool in config.pools.items():
        yield from _pool(("pools", name), pool)
        yield from _fallbacks(("pools", name, "fallback"), name, config)
        if pool.idle_timeout_s > config.gateway.stream_idle_timeout_s:
            yield ("pools", name, "idle_timeout_s"), "never reached: gateway.stream_idle_timeout_s is shorter"
    yield from broken_experiments(config)
    yield from broken_meshes(config)
    yield from broken_cascades(config)


def _listeners(config: GatewayConfig) -> Iterator[Finding]:
    used: dict[TcpAddress, str] = {}
    for key, address in (
        (("gateway", "listen"), config.gateway.listen),
        (("gateway", "admin"), config.gateway.admin),
        (("gateway", "fallback_listen"), config.gateway.fallback_listen),
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


def _fallback_listen(config: GatewayConfig) -> Iterator[Finding]:
    key, address = ("gateway", "fallback_listen"), config.fallback_address
    if address is None:
        needs = "there is a cascade" if config.cascades else "a pool has a fallback"
        if config.cascades or any(pool.fallback for pool in config.pools.values()):
            yield key, f"{needs}, and service.listen is no Unix socket beside which it could be"
    elif isinstance(address, TcpAddress):
        if not address.is_loopback:
            yield key, "who can connect there needs no key: unix:/path, or an address of loopback"
    elif len(address.path.encode()) > MAX_SOCKET_PATH_BYTES:
        yield key, "beside service.listen its path would be too long: give one"


def _fallbacks(key: Key, name: str, config: GatewayConfig) -> Iterator[Finding]:
    """Whatever serves in its place can carry what is asked for, and its price can be added to the same budgets."""
    seen = {name}
    for index, fallback in enumerate(config.pools[name].fallback):
        if fallback.pool not in config.pools:
            yield (*key, index, "pool"), f"there is no pool {fallback.pool}"
        elif fallback.public_model is not None and fallback.public_model not in config.models:
            yield (*key, index, "public_model"), f"there is no model {fallback.public_model}"
        elif fallback.pool in seen:
            yield (*key, index, "pool"), "it is the pool itself" if fallback.pool == name else "it is named twice"
        else:
            yield from _fallback((*key, index), name, fallback, config)
        seen.add(fallback.pool)


def _fallback(key: Key, name: str, fallback: Fallback, config: GatewayConfig) -> Iterator[Finding]:
    dialect = config.pools[fallback.pool].dialect
    for asked_name, asked in config.models.items():
        if asked.pool != name:
            continue
        if not CARRIES[dialect].intersection(asked.operations):
            yield (*key, "pool"), f"its {dialect} dialect carries nothing that is asked of model {asked_name}"
        serving = asked if fallback.public_model is None else config.models[fallback.public_model]
        takes_one_text = dialect is DialectName.TRITON_GENERATE and Operation.CHAT in asked.operations
        if takes_one_text and (serving.chat_template is None or serving.tokenizer is None):
            needs = "chat over triton-generate needs a tokenizer and a chat_template"
            yield (*key, "pool"), f"{needs}, which {fallback.public_model or asked_name} has not"
        if asked.price and serving.price and asked.price.currency != serving.price.currency:
            yield (*key, "public_model"), f"its price is in another currency than that of {asked_name}"


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
    if takes_one_text and Operation.CHAT in model.operations:
        if model.chat_template is None:
            yield key, "chat over triton-generate needs a chat_template, because the server takes one text"
        elif model.tokenizer is None:
            yield (*key, "chat_template"), "nothing renders it without a tokenizer"


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
    if pool.gpu_aware is not None and pool.balancing is not Balancing.GPU_AWARE:
        yield (*key, "gpu_aware"), f"balancing is {pool.balancing}"
    if pool.balancing.is_ours:
        yield from _choosing(key, pool)
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


def _choosing(key: Key, pool: Pool) -> Iterator[Finding]:
    """Envoy takes addresses from the service, and never looks a name up for it."""
    for name, cluster in pool.clusters.items():
        for index, endpoint in enumerate(cluster.endpoints):
            if not endpoint.is_ip:
                yield (*key, "clusters", name, "endpoints", index), f"with {pool.balancing} it has to be an IP address"
        if pool.balancing is Balancing.GPU_AWARE and not cluster.metrics:
            yield (*key, "clusters", name), "gpu_aware needs its metrics"
