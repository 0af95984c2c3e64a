"""Kubernetes manifests: rendered by Helm's and kustomize's own code, and checked against published schemas."""

import enum
import functools
import importlib
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import helm_python
import kubernetes_validate
import yaml

Json = dict[str, Any]
FOLDER = pathlib.Path(__file__).parents[2] / "envoy"
CHART = FOLDER / "helm" / "extproc"
KUBERNETES = ("1.29", "1.37")
"""The oldest that the chart says it works with, and the newest of which there are schemas."""

_KUBECTL = pathlib.Path(sys.executable).with_name("kubectl")
_ISTIO = {
    "networking.istio.io/v1alpha3": "networking.v1alpha3",
    "networking.istio.io/v1": "networking.v1",
    "security.istio.io/v1": "security.v1",
    "telemetry.istio.io/v1": "telemetry.v1",
}


def helm(values: Json, name: str = "extproc") -> list[Json]:
    """The chart's resources with these values. Raises HelmError."""
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name=name, namespace="ai-gateway")
    return [resource for _, text in sorted(rendered.items()) for resource in read(text)]


def lint(values: Json) -> list[str]:
    """What `helm lint --strict` complains of; that there is no icon is no complaint."""
    report = helm_python.lint(CHART, values, strict=True, namespace="ai-gateway")
    messages = [entry["error"] for entry in report["messages"]]
    return [message for message in [*messages, *report["errors"]] if "icon" not in message]


def kustomize(folder: str) -> list[Json]:
    """The resources of an overlay."""
    command = [str(_KUBECTL), "kustomize", str(FOLDER / "kubernetes" / folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return read(done.stdout)


def read(text: str) -> list[Json]:
    return [resource for resource in yaml.safe_load_all(text) if resource]


def assert_kubernetes(resource: Json) -> None:
    """Kubernetes takes it, old and new, and knows each of its fields."""
    for version in KUBERNETES:
        kubernetes_validate.validate(resource, version, strict=True)


def assert_istio(resource: Json) -> None:
    """Istio's definitions have a place for everything in it. The models pass over what they don't know; what they
    were given has to come back from them."""
    group = _ISTIO[resource["apiVersion"]]
    kind = getattr(importlib.import_module(f"cloudcoil.models.istio.{group}"), resource["kind"])
    returned = _plain(kind.model_validate(resource).model_dump(by_alias=True, exclude_unset=True))
    assert returned["spec"] == resource["spec"]


def containers(resources: list[Json]) -> Iterator[tuple[Json, Json]]:
    """Every container with its pod's specification."""
    for resource in resources:
        if resource["kind"] == "Deployment":
            pod = resource["spec"]["template"]["spec"]
            for container in [*pod.get("initContainers", ()), *pod["containers"]]:
                yield pod, container


def of_kind(resources: list[Json], kind: str) -> Json:
    (only,) = (resource for resource in resources if resource["kind"] == kind)
    return only


@functools.singledispatch
def _plain(value: Any) -> Any:
    return value


@_plain.register
def _(value: dict) -> Any:  # type: ignore[type-arg]
    return {name: _plain(inner) for name, inner in value.items()}


@_plain.register
def _(value: list) -> Any:  # type: ignore[type-arg]
    return [_plain(inner) for inner in value]


@_plain.register
def _(value: enum.Enum) -> Any:
    return value.value
