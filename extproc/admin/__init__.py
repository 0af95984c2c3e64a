"""The service's HTTP admin interface: metrics, health, version. Must not know: the request path."""
