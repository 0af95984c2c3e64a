"""Wire formats: what clients speak to us and what we speak to a pool.

Owns parsing, translating and error shapes. Must not know I/O, Redis, gRPC or the policies.

Map: `interface` (the types everyone else uses), `answer` (events), `registry` (path -> client API, name -> dialect).
Client APIs: `openai_api` (requests in `openai_requests`, `_schema`, `_validation`; answers in `openai_stream`,
`_whole`, `_wire`) and `kserve_api`. Pool dialects: `openai_pool`, `triton_generate`, `kserve_pool`, on top of
`decoding`, `sse` and `upstream_errors`. Anthropic Messages, OpenAI Responses and KServe over gRPC will be further
client APIs beside these.
"""
