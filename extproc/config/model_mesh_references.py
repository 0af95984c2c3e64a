"""What `model_meshes` and `pools` say about each other, checked.

Must not know: lines and files; it names keys.
"""

from collections.abc import Iterator, Mapping

from extproc.config.address import TcpAddress
from extproc.config.document import Key
from extproc.config.model import GatewayConfig
from extproc.config.model_meshes import MeshedModel, ModelMesh
from extproc.config.pools import DialectName, Pool

Finding = tuple[Key, str]


def broken_meshes(config: GatewayConfig) -> Iterator[Finding]:
    """Every contradiction."""
    pools: dict[str, dict[str, Pool]] = {name: {} for name in config.model_meshes}
    for name, pool in config.pools.items():
        if pool.model_mesh is None:
            continue
        if pool.model_mesh not in config.model_meshes:
            yield ("pools", name, "model_mesh"), f"there is no model mesh {pool.model_mesh}"
            continue
        pools[pool.model_mesh][name] = pool
        yield from _pool(("pools", name), pool)
    for name, mesh in config.model_meshes.items():
        key: Key = ("model_meshes", name)
        if not pools[name]:
            yield key, "no pool is in it"
        yield from _same_servers(pools[name])
        yield from _room(key, mesh, pools[name])
        if mesh.wait_s > config.gateway.stream_idle_timeout_s:
            yield (*key, "wait_s"), "never reached: gateway.stream_idle_timeout_s is shorter"
    yield from _apart(config, pools)
    yield from _nobody_waits(config)
    if config.model_meshes and config.fallback_address is None:
        yield ("gateway", "fallback_listen"), "model_meshes need it, and service.listen is no Unix socket beside it"


def _pool(key: Key, pool: Pool) -> Iterator[Finding]:
    if pool.dialect is DialectName.OPENAI:
        yield (*key, "model_mesh"), "its servers speak openai, and have no repository to load from"
    if pool.tls is not None:
        yield (*key, "tls"), "a server's repository is asked without TLS"
    if pool.health.path is not None:
        yield (*key, "health", "path"), "where models come and go, health is that of the model"


def _same_servers(pools: Mapping[str, Pool]) -> Iterator[Finding]:
    first = next(iter(pools), "")
    for name, pool in pools.items():
        if _servers(pool) != _servers(pools[first]):
            yield ("pools", name, "clusters"), f"other endpoints than pool {first}, which is in the same model mesh"


def _apart(config: GatewayConfig, pools: Mapping[str, Mapping[str, Pool]]) -> Iterator[Finding]:
    owner: dict[TcpAddress, str] = {}
    for name, members in pools.items():
        for endpoint in {endpoint for pool in members.values() for endpoint in _servers(pool)}:
            if owner.setdefault(endpoint, name) != name:
                yield ("model_meshes", name), f"{endpoint} is in {owner[endpoint]}, too"


def _room(key: Key, mesh: ModelMesh, pools: Mapping[str, Pool]) -> Iterator[Finding]:
    names = {pool.model for pool in pools.values()}
    for name in mesh.models:
        if name not in names:
            yield (*key, "models", name), "no pool of this mesh has this model"
    models = {name: mesh.models.get(name, MeshedModel()) for name in names}
    kept = {name for name, model in models.items() if model.keep}
    if mesh.max_models is not None and len(kept) + bool(names - kept) > mesh.max_models:
        yield (*key, "max_models"), "what is kept leaves no room for the others"
    if mesh.memory_mb is None:
        return
    kept_mb = sum(models[name].memory_mb or 0 for name in kept)
    for name, model in sorted(models.items()):
        if model.memory_mb is None:
            yield (*key, "models", name), "the mesh has memory_mb, so say what it takes"
        elif kept_mb + (0 if name in kept else model.memory_mb) > mesh.memory_mb:
            yield (*key, "models", name, "memory_mb"), "with what is kept it never fits"


def _nobody_waits(config: GatewayConfig) -> Iterator[Finding]:
    """Who is sent a copy, or asked in another's place, is not waited for."""
    text = "nothing waits until it is loaded: keep its model"
    for name, pool in config.pools.items():
        for index, fallback in enumerate(pool.fallback):
            if comes_and_goes(config, fallback.pool):
                yield ("pools", name, "fallback", index, "pool"), text
    for name, experiment in config.experiments.items():
        if experiment.mirror is not None and comes_and_goes(config, experiment.mirror.pool):
            yield ("experiments", name, "mirror", "pool"), text


def comes_and_goes(config: GatewayConfig, name: str) -> bool:
    """Whether the pool's model is loaded when a request waits for it, and only then."""
    pool = config.pools.get(name)
    mesh = None if pool is None or pool.model_mesh is None else config.model_meshes.get(pool.model_mesh)
    return pool is not None and mesh is not None and not mesh.models.get(pool.model, MeshedModel()).keep


def _servers(pool: Pool) -> frozenset[TcpAddress]:
    return frozenset(endpoint for cluster in pool.clusters.values() for endpoint in cluster.endpoints)
