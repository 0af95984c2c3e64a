"""What an operator does to a running gateway, whoever asks: the command line or the admin API.

One function per action; a change is on the audit log before the caller hears of it. Must not know: HTTP, terminals.
"""
