"""Envoy's configuration, generated from gateway.yaml as typed messages.

`bootstrap` joins the parts: `listener` (with `sanitise`, `health`, `processor`, `access_log`, `local_replies` and
`tracing`), `fallback`, `routes` and `clusters`; `xds` writes it as files that a running Envoy follows. Importing it
takes half a second, so only the commands that need it do. Must not know: the request path; the service never imports
it.
"""

from extproc.mesh.bootstrap import bootstrap, bootstrap_yaml
from extproc.mesh.xds import write_xds

__all__ = ["bootstrap", "bootstrap_yaml", "write_xds"]
