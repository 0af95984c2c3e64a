"""Measurements. `make bench` runs them all side by side; docs/performance.md keeps what they printed."""
