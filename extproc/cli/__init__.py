"""The `extproc` command: one file per group of sub-commands, each importing what it needs only when it runs."""
