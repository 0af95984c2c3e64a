"""Compiled patterns that all test processes share, as workers do: compiling them takes seconds."""

import functools
import os
import tempfile

from extproc.detection.database import Keep
from extproc.stores.databases import databases_of


@functools.cache
def kept() -> Keep:
    return databases_of(os.environ, tempfile.gettempdir()).obtain
