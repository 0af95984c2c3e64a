"""gRPC: bytes to events and replies to bytes. The only importer of grpc and protobuf; must not know the policies.

Map: `codec` (protobuf <-> exchange messages), `server` (the ext_proc service, health, drain).
"""
