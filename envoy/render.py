"""Writes what under this folder is made from something else; a test asserts that it is up to date.

Run `PYTHONPATH=. python envoy/render.py` after a change of the chart, of `istio/gateway.yaml` or of what Envoy is told.
The base for kustomize is the Helm chart with its own values; the EnvoyFilters are `extproc envoy --format istio-...`.
"""

import os
import pathlib
import re

import helm_python
import yaml

from extproc import gateway_file, mesh

HERE = pathlib.Path(__file__).parent
HEADER = "# Made by envoy/render.py from {source}: change that.\n"
NAMESPACE = "ai-gateway"
_DOCUMENT_END = re.compile(r"^---$", re.MULTILINE)
_CHECKSUM = re.compile(r"^ *# Envoy's configuration is made.*\n *checksum/config: \w+\n", re.MULTILINE)


def base() -> tuple[str, str]:
    """The chart's resources in one file, and gateway.yaml in another: kustomize makes the ConfigMap of it, and names it
    by its content, so that a change is rolled out."""
    with helm_python.Chart.load(HERE / "helm" / "extproc") as chart:
        rendered = chart.render({}, name="extproc", namespace=NAMESPACE)
    documents = [text for _, texts in sorted(rendered.items()) for text in _DOCUMENT_END.split(texts) if text.strip()]
    config = next(text for text in documents if "kind: ConfigMap" in text)
    others = "\n---\n".join(text.strip() for text in documents if text is not config)
    others = _CHECKSUM.sub("", others).replace("managed-by: Helm", "managed-by: Kustomize")
    header = HEADER.format(source="helm/extproc")
    return f"{header}{others}\n", header + yaml.safe_load(config)["data"]["gateway.yaml"].strip() + "\n"


def envoy_filter(place: mesh.Place) -> str:
    """For istio/gateway.yaml."""
    os.environ.setdefault("EXTPROC_KEY_SECRET", "only-so-that-the-file-can-be-read")
    config = gateway_file.load(HERE / "istio" / "gateway.yaml")
    if place is mesh.Place.GATEWAY:
        labels, host, port = {"istio": "ai-gateway"}, "ai.example.com", 80
        target = mesh.Target(place, port, host, "extproc-gateway", NAMESPACE, labels)
    else:
        target = mesh.Target(place, 8000, "", "extproc-sidecar", "models", {"app": "triton"})
    return HEADER.format(source="istio/gateway.yaml") + mesh.to_yaml(mesh.envoy_filter(config, target))


def files() -> dict[pathlib.Path, str]:
    """What has to be where."""
    resources, config = base()
    return {
        HERE / "kubernetes" / "base" / "extproc.yaml": resources,
        HERE / "kubernetes" / "base" / "gateway.yaml": config,
        HERE / "istio" / "envoyfilter-gateway.yaml": envoy_filter(mesh.Place.GATEWAY),
        HERE / "istio" / "envoyfilter-sidecar.yaml": envoy_filter(mesh.Place.SIDECAR),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
        print(path.relative_to(HERE))
