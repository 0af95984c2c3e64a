"""The local stack: real Envoy, Redis and Triton around the service, started and stopped as one.

For laptops and tests. Must not know: what the service does with a request.
"""
