"""What an experiment showed: outcomes read from usage records, tests that stay valid however often one looks, reports
and guardrails. Pure: no I/O, no clock. Must not know where records come from, or how an arm was assigned.
"""
