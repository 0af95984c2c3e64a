"""gRPC: bytes to events and replies to bytes. The only importer of protobuf and hpack; must not know the policies.

Map: `server` (the ext_proc service, drain), `health`, `codec` (protobuf <-> exchange messages), `http2` (a connection),
`calls` (one gRPC call over it), `frames` (HTTP/2 as bytes).
"""
