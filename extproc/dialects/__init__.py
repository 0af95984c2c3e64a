"""Wire formats: what clients speak to us and what we speak to a pool.

Owns parsing, translating and error shapes. Must not know I/O, Redis, gRPC or the policies.

Map: `interface` (the types everyone else uses), `answer` (events), `sse` (incremental Server-Sent Events),
`openai_*` (client API and dialect), `triton_generate`, `kserve`, `registry` (path -> client API, name -> dialect).
Anthropic Messages, OpenAI Responses and KServe over gRPC will be further client APIs beside these.
"""
