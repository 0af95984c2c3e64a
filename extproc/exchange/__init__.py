"""One HTTP exchange as a sans-IO state machine: which event may come now, which reply is legal now.

Must not know asyncio, gRPC, Redis or any policy. Map: `messages` (events, effects, replies as plain values),
`machine` (the transition tables and the `Exchange`).
"""
