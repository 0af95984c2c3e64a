"""What every policy's section has in common; each policy subclasses it beside its own code.

Must not know: any policy.
"""

import enum

from extproc.config.section import Seconds, Section


class PolicyMode(enum.StrEnum):
    """`enforce` acts, `shadow` decides and reports but changes nothing, `off` does not run."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


class FailureMode(enum.StrEnum):
    """What becomes of a request when something it needs is lost: `open` lets it pass, `closed` refuses it."""

    OPEN = "open"
    CLOSED = "closed"


class PolicySettings(Section):
    """The settings that every policy has."""

    mode: PolicyMode = PolicyMode.ENFORCE
    """`enforce` acts; `shadow` decides and reports but changes nothing; `off` does not run."""

    deadline_s: Seconds | None = None
    """Longest time the policy may take for one request; without one it may take as long as the request."""

    on_failure: FailureMode = FailureMode.CLOSED
    """When the deadline passes or a dependency is lost: `closed` refuses the request, `open` goes on."""

    @property
    def uses_encoder(self) -> bool:
        """With these settings the policy asks the encoder. Overridden by those that do: the model is loaded only for
        them."""
        return False

    @property
    def uses_scan(self) -> bool:
        """It asks through the scan of all of a request's texts (`ctx.scan`). Overridden by those that ask otherwise."""
        return self.uses_encoder

    @property
    def uses_verifier(self) -> bool:
        """With these settings the policy asks the pair verifier, which is loaded only for it."""
        return False

    @property
    def shapes_answers(self) -> bool:
        """Other settings could give another answer to the same request, so that one kept from before a change is not
        served after it. Overridden by those whose settings can't."""
        return True

    @property
    def keeps_answers(self) -> bool:
        """The policy asks the store of answers. Overridden by the caches."""
        return False
