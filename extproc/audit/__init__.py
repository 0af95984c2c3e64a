"""Who decided what: a tamper-evident record of every decision that changed something, and of every admin action.

`record` is the vocabulary (all that policies may know), `chain` what makes a line tamper-evident, `files` the directory
it is kept in, `writer` the thread that keeps it, `verify` what finds a break. Never any content of prompts or answers.
"""
