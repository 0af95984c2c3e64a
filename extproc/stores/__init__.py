"""What is shared between workers and replicas, in Redis.

Must not know: the policies that use it. Every library error leaves here as a DependencyError.
"""
