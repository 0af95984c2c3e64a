"""The failures that this program tells apart; anything else that is raised is a bug.

Must not know: who raises them, and what is done about them.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration file, and where. Never carries a value, which may be a secret."""

    source: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.key + ': ' if self.key else ''}{self.message}"


class ConfigError(Exception):
    """A configuration that can't be used, with everything that is wrong with it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class ProtocolError(Exception):
    """The peer broke the contract of its protocol."""


class DependencyError(Exception):
    """Something this program depends on was too slow, unreachable or overloaded."""

    def __init__(self, dependency: str, message: str) -> None:
        super().__init__(f"{dependency}: {message}")
        self.dependency = dependency
