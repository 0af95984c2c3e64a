"""gRPC: bytes to events and replies to bytes. The only importer of grpc, protobuf and hpack; knows no policies.

Map: `service` (ext_proc and its end, whichever server took the call), `health`, `codec` (protobuf <-> exchange
messages), `stream` (a call as these see it); `server` (the choice), `grpcio_server`, `asyncio_server`; under the latter
`http2` (a connection), `calls` (one gRPC call over it), `frames` (HTTP/2 as bytes).
"""
