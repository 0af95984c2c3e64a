"""Envoy's configuration, generated from gateway.yaml as typed messages.

`bootstrap` joins the parts: `listener` (with `sanitise`, `health`, `processor`, `access_log`, `local_replies` and
`tracing`), `fallback`, `routes` and `clusters`; `xds` writes it as files that a running Envoy follows, `istio` as
patches to one that Istio configures. Importing it takes half a second, so only the commands that need it do. Must not
know: the request path; the service never imports it.
"""

from extproc.mesh.bootstrap import bootstrap, bootstrap_yaml
from extproc.mesh.istio import Place, Target, envoy_filter
from extproc.mesh.render import to_yaml
from extproc.mesh.xds import write_xds

__all__ = ["Place", "Target", "bootstrap", "bootstrap_yaml", "envoy_filter", "to_yaml", "write_xds"]
