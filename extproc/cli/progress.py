"""How long work is shown on a terminal. Must not know: the work."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@contextlib.contextmanager
def shown() -> Iterator[Callable[[str, float], None]]:
    """Yields what is to be told (step, share done) and shows it; away from a terminal, a line for each step."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines().tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def tell(step: str, share: float) -> None:
            bar.update(task, description=step, completed=share)

        yield tell


class _Lines:
    """Each step once, as a line."""

    def __init__(self) -> None:
        self._told = ""

    def tell(self, step: str, share: float) -> None:
        if step != self._told:
            print(step, file=sys.stderr, flush=True)
            self._told = step
