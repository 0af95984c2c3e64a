"""The manifests under envoy/: rendered by the real tools, valid by published schemas, least privilege, and with
configurations that extproc and Envoy take. No cluster runs where the tests run."""

import importlib.util
import pathlib
from typing import Any

import helm_python
import pytest

from extproc import gateway_file
from extproc.mesh import bootstrap_yaml
from tests.helpers.certificates import Authority, TokenIssuer
from tests.helpers.manifests import (
    FOLDER,
    Json,
    assert_istio,
    assert_kubernetes,
    containers,
    helm,
    kustomize,
    lint,
    of_kind,
    read,
)
from tests.integration.test_envoy_config import assert_accepted

JWKS = TokenIssuer("https://i").jwks()
VALUES: dict[str, Json] = {
    "the chart's own": {},
    "its own Redis": {"redis": {"enabled": True}},
    "TLS": {"envoy": {"tls": {"secretName": "tls"}}},
    "clients' certificates": {"envoy": {"tls": {"secretName": "tls", "clientCertificates": "required"}}},
    "mutual TLS to servers and Redis": {
        "envoy": {"upstreamTlsSecretName": "upstream"},
        "redis": {"tlsSecretName": "redis-tls"},
        "config": {"pools": {"llm": {"tls": {"ca_file": "/etc/envoy/upstream/ca.crt"}}}},
    },
    "files and other settings": {
        "files": {"jwks.json": JWKS},
        "config": {
            "identities": {
                "issuers": {"i": {"issuer": "https://i", "audiences": ["a"], "jwks_file": "jwks.json", "team": "t"}}
            },
            "gateway": {"max_body_bytes": 4096},
        },
        "extproc": {"env": [{"name": "X", "value": "y"}]},
    },
    "nothing that can be left out": {
        "autoscaling": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "replicas": 3,
    },
    "peers": {
        "networkPolicy": {"clients": [{"podSelector": {}}], "metrics": [], "egress": []},
        "service": {"type": "LoadBalancer", "port": 443, "annotations": {"a": "b"}},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "podLabels": {"team": "x"},
        "podAnnotations": {"a": "b"},
        "imagePullSecrets": [{"name": "r"}],
    },
}
OVERLAYS = ("base", "overlays/cuda", "overlays/tls")
PLAIN_FILES = sorted([*FOLDER.glob("istio/*.yaml"), *FOLDER.glob("envoy-gateway/*.yaml")])
KUBERNETES_KINDS = ("v1", "apps/v1", "policy/v1", "networking.k8s.io/v1", "autoscaling/v2")
# Of Gateway API and Envoy Gateway no package that Python can use has the schemas.
WITHOUT_SCHEMA = ("gateway.networking.k8s.io/v1", "gateway.envoyproxy.io/v1alpha1")


def _resources(path: pathlib.Path) -> list[Json]:
    return [resource for resource in read(path.read_text()) if "apiVersion" in resource]


def _everything() -> dict[str, list[Json]]:
    made = {f"helm, {name}": helm(values) for name, values in VALUES.items()}
    made |= {folder: kustomize(folder) for folder in OVERLAYS}
    made |= {str(path.relative_to(FOLDER)): _resources(path) for path in PLAIN_FILES}
    return {name: resources for name, resources in made.items() if resources}


@pytest.fixture(scope="module")
def everything() -> dict[str, list[Json]]:
    return _everything()


@pytest.mark.parametrize("name", VALUES)
def test_helm_has_no_complaint(name: str) -> None:
    assert lint(VALUES[name]) == []


@pytest.mark.parametrize(
    "values",
    [{"replica": 3}, {"envoy": {"tls": {"clientCertificates": "sometimes"}}}, {"config": None}, {"files": {"a": 1}}],
)
def test_helm_refuses_values_that_mean_nothing(values: Json) -> None:
    with pytest.raises(helm_python.HelmError):
        helm(values)


def test_every_manifest_fits_its_schema(everything: dict[str, list[Json]]) -> None:
    seen = set()
    for resources in everything.values():
        for resource in resources:
            version = resource["apiVersion"]
            seen.add(resource["kind"])
            if version in KUBERNETES_KINDS:
                assert_kubernetes(resource)
            elif version not in WITHOUT_SCHEMA:
                assert_istio(resource)
    assert {"EnvoyFilter", "Telemetry", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"} <= seen


def test_a_field_that_istio_does_not_know_is_seen() -> None:
    (telemetry,) = _resources(FOLDER / "istio" / "telemetry.yaml")
    telemetry["spec"]["tracing"][0]["sampling"] = 1
    with pytest.raises(AssertionError):
        assert_istio(telemetry)


def test_containers_may_do_as_little_as_possible(everything: dict[str, list[Json]]) -> None:
    for name, resources in everything.items():
        for pod, container in containers(resources):
            where = f"{name}: {container['name']}"
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
            assert pod.get("serviceAccountName") is None or pod.get("automountServiceAccountToken") is not True, where
            if container["name"] in {"istio-proxy", "triton"}:
                continue  # the injector's, and NVIDIA's
            security = {**pod["securityContext"], **container["securityContext"]}
            assert security["runAsNonRoot"] is True, where
            assert security["runAsUser"] == 10001, where
            assert security["readOnlyRootFilesystem"] is True, where
            assert security["allowPrivilegeEscalation"] is False, where
            assert security["capabilities"] == {"drop": ["ALL"]}, where
            assert {"memory"} <= container["resources"]["limits"].keys(), where
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), where


def test_secrets_are_only_where_they_are_needed(everything: dict[str, list[Json]]) -> None:
    """Envoy sees no key of ours, extproc none of Envoy's; what is in a ConfigMap is no secret."""
    for name, resources in everything.items():
        for _, container in containers(resources):
            mounted = {mount["name"] for mount in container["volumeMounts"]} if "volumeMounts" in container else set()
            if container["name"] == "envoy":
                assert not mounted & {"secrets", "config", "redis-tls", "state"}, name
            elif container["name"] == "extproc":
                assert not mounted & {"tls", "upstream-tls", "xds"}, name
        for resource in resources:
            if resource["kind"] == "ConfigMap":
                text = resource["data"]["gateway.yaml"]
                assert "hash_secret_file: /etc/extproc/secrets" in text, name
                assert "${file:/etc/extproc/secrets/redis" in text, name
    assert not [r for resources in everything.values() for r in resources if r["kind"] == "Secret"]


def _here(text: str, directory: pathlib.Path) -> str:
    """The configuration with the pod's directories in `directory`."""
    return text.replace("/etc/extproc", f"{directory}/extproc").replace("/etc/envoy", f"{directory}/envoy")


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What the pods mount."""
    directory: pathlib.Path = tmp_path_factory.mktemp("mounted")
    secrets = directory / "extproc" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "key-secret").write_text("0123456789abcdef\n")
    (secrets / "redis-url").write_text("redis://:p@redis:6379\n")
    (secrets / "redis-password").write_text("1234\n")
    (directory / "extproc" / "jwks.json").write_text(JWKS)
    authority = Authority(directory / "pki")
    pair = authority.issue("any", local=True)
    for place in ("tls", "upstream"):
        (directory / "envoy" / place).mkdir(parents=True)
        for name, source in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", authority.file)):
            (directory / "envoy" / place / name).write_text(pathlib.Path(source).read_text())
    return directory


@pytest.mark.parametrize("name", [*(f"helm, {name}" for name in VALUES), *OVERLAYS, "envoy-gateway/processor.yaml"])
def test_the_configuration_is_one_that_extproc_and_envoy_take(
    everything: dict[str, list[Json]], mounted: pathlib.Path, name: str, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    models = mounted / "models"
    monkeypatch.setenv("EXTPROC_HOME", str(models))
    for folder, files in (("minilm", ("tokenizer.json", "model.onnx")),):
        (models / "models" / folder).mkdir(parents=True, exist_ok=True)
        for file in files:
            (models / "models" / folder / file).touch()
    text = of_kind(everything[name], "ConfigMap")["data"]["gateway.yaml"]
    config = mounted / "extproc" / "gateway.yaml"
    config.write_text(_here(text, mounted))
    loaded = gateway_file.load(config, {})
    assert loaded.redis.url.get_secret_value().startswith(("redis://:p@redis", "redis://:1234@extproc-redis"))
    # Two addresses that are a pod's own: its kubelet's probes, and its clients.
    assert loaded.service.admin.host == "0.0.0.0"
    (tmp_path / "envoy.yaml").write_text(bootstrap_yaml(loaded))
    assert_accepted(tmp_path / "envoy.yaml")


def test_probes_speak_what_envoy_does(everything: dict[str, list[Json]]) -> None:
    for name, scheme in (("the chart's own", "HTTP"), ("TLS", "HTTPS")):
        probe = _envoy(everything[f"helm, {name}"])["readinessProbe"]["httpGet"]
        assert (probe["path"], probe["scheme"]) == ("/v2/health/ready", scheme)
    assert "tcpSocket" in _envoy(everything["helm, clients' certificates"])["readinessProbe"]
    assert _envoy(everything["overlays/tls"])["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"


def test_a_pod_outlives_its_streams(everything: dict[str, list[Json]]) -> None:
    """Envoy's drain, then extproc's, and then there still is time."""
    pod = of_kind(everything["helm, the chart's own"], "Deployment")["spec"]["template"]["spec"]
    (sidecar,) = (container for container in pod["initContainers"] if container.get("restartPolicy") == "Always")
    assert sidecar["name"] == "extproc"
    assert pod["terminationGracePeriodSeconds"] > 40 + 30


def test_what_is_generated_is_current() -> None:
    spec = importlib.util.spec_from_file_location("render", FOLDER / "render.py")
    assert spec is not None
    assert spec.loader is not None
    render = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(render)
    for path, text in render.files().items():
        assert path.read_text() == text, f"run `python envoy/render.py`: {path} is old"


def test_envoy_gateway_routes_every_pool_by_its_stamp(tmp_path: pathlib.Path, mounted: pathlib.Path) -> None:
    """No schema of these is at hand, so what can go wrong between them: names that nobody has, a pool forgotten."""
    resources = _resources(FOLDER / "envoy-gateway" / "routes.yaml")
    known = {(resource["kind"], resource["metadata"]["name"]) for resource in resources}
    rules = of_kind(resources, "HTTPRoute")["spec"]["rules"]
    stamps = {header["value"] for rule in rules for match in rule["matches"] for header in match.get("headers", ())}
    processor = _resources(FOLDER / "envoy-gateway" / "processor.yaml")
    config = mounted / "extproc" / "gateway.yaml"
    config.write_text(_here(of_kind(processor, "ConfigMap")["data"]["gateway.yaml"], mounted))
    assert stamps == gateway_file.load(config, {}).pools.keys()
    for rule in rules:
        for ref in rule.get("backendRefs", ()):
            assert (ref["kind"], ref["name"]) in known
        for entry in rule["filters"]:
            if entry["type"] == "ExtensionRef":
                assert (entry["extensionRef"]["kind"], entry["extensionRef"]["name"]) in known
    assert "headers" not in rules[-1]["matches"][0]
    policy = of_kind(resources, "EnvoyExtensionPolicy")["spec"]
    assert ("HTTPRoute", policy["targetRefs"][0]["name"]) in known
    removed = of_kind(resources, "ClientTrafficPolicy")["spec"]["headers"]["earlyRequestHeaders"]["remove"]
    assert "x-extproc-pool" in removed
    (backend,) = policy["extProc"][0]["backendRefs"]
    service = of_kind(processor, "Service")
    assert (backend["name"], backend["port"]) == (service["metadata"]["name"], service["spec"]["ports"][0]["port"])


def _envoy(resources: list[Json]) -> Json:
    (only,) = (container for _, container in containers(resources) if container["name"] == "envoy")
    return only
