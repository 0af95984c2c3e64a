"""How the heads' weights were made: data generated from phrases written here, a training run, a report.

For developers only: it is not in the wheel, and needs the `training` extra. Nothing that serves imports it.
"""
