"""The section `policies.redact` of gateway.yaml.

Must not know: how anything is found or replaced.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated

import pydantic

from extproc.config.policy import PolicyMode, PolicySettings
from extproc.config.section import Seconds, Section
from extproc.detection.patterns import REGIONS
from extproc.detection.replacement import Action

Entity = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{1,40}$")]
Confidence = Annotated[float, pydantic.Field(ge=0, le=1)]
NAMES = frozenset({"ADDRESS", "LOCATION", "ORGANIZATION", "PERSON"})
"""What only the encoder finds."""

EVERYWHERE = frozenset({"general", "secrets"})
"""The tables of patterns that belong to no country."""

_MIN_SECRET_CHARS = 16
_MAX_SECRET_BYTES = 64


class AnswerAction(enum.StrEnum):
    """What becomes of a find in an answer: as in a request, but there is nobody to put a pseudonym's original back."""

    ALLOW = "allow"
    REDACT = "redact"
    MASK = "mask"
    HASH = "hash"
    BLOCK = "block"


class UnreadAction(enum.StrEnum):
    """What becomes of a request with something in it that can't be read."""

    ALLOW = "allow"
    REFUSE = "refuse"


class RequestRules(Section):
    """What becomes of finds on their way to the model."""

    action: Action = Action.REDACT
    """For every entity that is not under `actions`: `allow` leaves it, `redact` writes `<EMAIL_ADDRESS>`, `mask` leaves
    the last four letters or digits, `hash` writes a keyed hash that is the same throughout a team, `pseudonymise`
    writes a placeholder that is turned back in the answer, `block` refuses the request."""

    actions: Mapping[Entity, Action] = {}
    """For single entities, by name: `CREDIT_CARD: block`."""

    token_ids: UnreadAction = UnreadAction.REFUSE
    """Prompts and inputs given as token ids, which can't be read: `refuse` (400) or `allow`."""

    media: UnreadAction = UnreadAction.ALLOW
    """Images, audio, files and tensors of bytes, which are not read: `refuse` (400) or `allow`."""


class AnswerNames(Section):
    """How names are looked for in answers: sentence by sentence, with short ones put together."""

    streams: bool = False
    """In streams too. They then come by sentences, each after the encoder has read it."""

    piece_chars: Annotated[int, pydantic.Field(ge=64, le=480)] = 320
    """Of a longer sentence, so much is read and released at once: what a stream holds back at most for its names."""

    budget_windows: Annotated[int, pydantic.Field(ge=1, le=4096)] = 64
    """Most windows (a piece is one, or two of other scripts) that the encoder reads of a text; patterns read it all."""

    deadline_s: Seconds = 1.0
    """Eight windows that are not read after so long have failed, and `on_failure` says what follows."""


class AnswerRules(Section):
    """What becomes of finds on their way to the client."""

    action: AnswerAction = AnswerAction.REDACT
    """For every entity that is not under `actions`; as for requests, without `pseudonymise`. `block` ends the answer
    there, with `finish_reason: content_filter`."""

    actions: Mapping[Entity, AnswerAction] = {}
    """For single entities, by name."""

    names: AnswerNames = AnswerNames()
    """How names are looked for, where `redact.names` says that they are."""


class Settings(PolicySettings):
    """Personal data in requests and answers: found, and replaced or refused."""

    mode: PolicyMode = PolicyMode.OFF
    """`enforce` acts; `shadow` looks and counts but changes nothing; `off` does not look."""

    requests: RequestRules = RequestRules()
    """What becomes of finds on their way to the model."""

    responses: AnswerRules = AnswerRules()
    """What becomes of finds on their way to the client."""

    regions: tuple[str, ...] = ()
    """The countries whose identifiers to look for (`us`, `uk`, `de`, ...); by default all that are known."""

    minimum_confidence: Confidence = 0.4
    """Finds that are less certain than this are left as they are."""

    names: bool = False
    """Find also people, places, organisations and addresses, by the encoder: in requests, in whole answers, and in
    streams where `responses.names.streams` says so. While the encoder is lost, `on_failure` says whether a request is
    refused and an answer ended (`closed`), or only patterns are looked for (`open`)."""

    hash_secret: pydantic.SecretStr | None = None
    """The secret of `hash`, 16 to 64 bytes. Who knows it can find out what a hash stands for."""

    inline_limit_chars: Annotated[int, pydantic.Field(ge=0)] = 65536
    """A request with more text than this is read in a thread, so that it doesn't delay the worker's other streams."""

    @pydantic.model_validator(mode="after")
    def _known(self) -> Settings:
        countries = set(REGIONS) - EVERYWHERE
        if unknown := sorted(set(self.regions) - countries):
            raise ValueError(f"no such region: {', '.join(unknown)}; there are {', '.join(sorted(countries))}")
        entities = NAMES | {pattern.entity for patterns in REGIONS.values() for pattern in patterns}
        if unknown := sorted({*self.requests.actions, *self.responses.actions} - entities):
            raise ValueError(f"no such entity: {', '.join(unknown)}")
        return self

    @pydantic.model_validator(mode="after")
    def _hashes_have_a_secret(self) -> Settings:
        secret = self.secret
        chosen = (
            self.requests.action, self.responses.action, *self.requests.actions.values(),
            *self.responses.actions.values(),
        )  # fmt: skip
        if secret is None and any(action == Action.HASH for action in chosen):
            raise ValueError("`hash` needs hash_secret")
        if secret is not None and not _MIN_SECRET_CHARS <= len(secret) <= _MAX_SECRET_BYTES:
            raise ValueError(f"hash_secret has {_MIN_SECRET_CHARS} to {_MAX_SECRET_BYTES} bytes")
        return self

    @property
    def secret(self) -> bytes | None:
        return None if self.hash_secret is None else self.hash_secret.get_secret_value().encode()

    @property
    def uses_encoder(self) -> bool:
        return self.names
