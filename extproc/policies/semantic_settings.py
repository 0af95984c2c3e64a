"""The section `policies.semantic_cache` of gateway.yaml. Must not know: how answers are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import pydantic

from extproc.config.policy import FailureMode, PolicyMode, PolicySettings
from extproc.config.section import ModelName, Seconds, Section

Similarity = Annotated[float, pydantic.Field(ge=0.5, le=1)]
Share = Annotated[float, pydantic.Field(gt=0, lt=1)]


class ModelSemanticCache(Section):
    """How one model's answers are found; what is not given is as for the others."""

    enabled: bool = True
    """False: only for the same question."""

    threshold: Similarity | None = None
    """The least similarity."""


class Settings(PolicySettings):
    """Answers to questions that ask for the same in other words. Off unless a section turns it on; needs
    `policies.cache`, which keeps the answers."""

    mode: PolicyMode = PolicyMode.OFF
    """`enforce` serves what it finds; `shadow` looks, and counts what it would have served; `off` does not run."""

    on_failure: FailureMode = FailureMode.OPEN
    """When the store, the encoder or the verifier is lost: `open` goes on to the model, `closed` refuses."""

    deadline_s: Seconds | None = 0.25
    """A lookup that takes longer has found nothing."""

    threshold: Similarity = 0.95
    """The first gate: the least similarity of two questions, (1 + cosine) / 2 as Redis's vector sets have it."""

    verifier_threshold: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.85
    """The last gate: the least probability, by the learned verifier, that two questions ask for the same. 0: there is
    no such gate, and the verifier is not loaded."""

    candidates: Annotated[int, pydantic.Field(ge=1, le=20)] = 3
    """Most questions that are looked at for one that is asked."""

    max_question_bytes: Annotated[int, pydantic.Field(ge=16, le=4000)] = 1000
    """Longer questions are only found by themselves."""

    models: Mapping[ModelName, ModelSemanticCache] = {}
    """What is different for some models."""

    target_error_rate: Share = 0.01
    """Of the answers served around a question, so many may be reported as wrong in the long run; the threshold there
    rises until it is so."""

    learning_step: Annotated[float, pydantic.Field(gt=0, le=0.1)] = 0.02
    """By how much one report raises the threshold above what was wrong."""

    learning_radius: Similarity = 0.9
    """The least similarity to a question whose answer was wrong, of those that its threshold is for."""

    feedback_s: Annotated[float, pydantic.Field(gt=0, le=30 * 86_400)] = 86_400.0
    """For so long a response can be reported, and what was learned from a report lasts."""

    debug_headers: bool = False
    """Tell in `x-extproc-cache-debug` which gate let the nearest questions pass or not. Never any text."""

    @property
    def uses_encoder(self) -> bool:
        return True

    @property
    def uses_verifier(self) -> bool:
        return self.verifier_threshold > 0

    @property
    def shapes_answers(self) -> bool:
        return False

    @property
    def keeps_answers(self) -> bool:
        return True
