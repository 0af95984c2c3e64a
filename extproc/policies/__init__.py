"""The steps of a request's journey, one file each, and the ordered lists that make the journey (`pipeline`).

Must not know grpc, Redis or onnxruntime: a policy gets what it needs through the protocols in `interface`.
How to add one: docs/adding-a-policy.md.
"""
