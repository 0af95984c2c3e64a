"""How well the guard tells attacks from the rest: AUC, recall at 1 % false positives, what it flags at its default
threshold, with and without disguises and padding.

    python -m tests.benchmarks.guard_quality [--encoder] [--fit]

`--encoder` adds the encoder's injection head, where the built model has one. `--fit` prints the numbers for
extproc/detection/guard_score.py: a logistic fit of the rules' weight, on the development half of our own sets alone.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest
from prometheus_client import CollectorRegistry

from extproc.clock import Clock
from extproc.config.encoder import Encoder as EncoderSettings
from extproc.detection import attacks
from extproc.detection.guard_score import score_of
from extproc.detection.standing_out import standing_out
from extproc.inference.opening import RunningEncoder, open_encoder
from extproc.policies.guard import Judged, Settings, ask
from extproc.policies.guard_result import Kind
from extproc.policies.scan import Importance, Scan
from extproc.policies.scan_texts import Settings as ScanSettings
from extproc.telemetry.metrics import Metrics
from tests.helpers.guard_sets import HIDING, Prompt, own, sample

Score = Callable[[str], float]


def auc(attack: Sequence[float], benign: Sequence[float]) -> float:
    """The chance that an attack scores higher than a benign prompt; ties count half."""
    above = sum((a > b) + 0.5 * (a == b) for a in attack for b in benign)
    return above / (len(attack) * len(benign))


def recall_at(attack: Sequence[float], benign: Sequence[float], false_positives: float) -> float:
    """The share of attacks above the lowest threshold that lets so many benign prompts through at most."""
    allowed = int(false_positives * len(benign))
    threshold = sorted(benign, reverse=True)[allowed]
    return sum(score > threshold for score in attack) / len(attack)


def report(name: str, prompts: Sequence[Prompt], score: Score, threshold: float) -> None:
    attack = [score(one.text) for one in prompts if one.attack]
    benign = [score(one.text) for one in prompts if not one.attack]
    caught = sum(value >= threshold for value in attack) / len(attack)
    wrong = sum(value >= threshold for value in benign) / len(benign)
    print(
        f"| {name} | {len(attack)} / {len(benign)} | {auc(attack, benign):.3f} | "
        f"{recall_at(attack, benign, 0.01):.0%} | {caught:.0%} | {wrong:.1%} |"
    )


def report_by_kind(prompts: Sequence[Prompt], score: Score, threshold: float) -> None:
    kinds: dict[tuple[bool, str], list[float]] = defaultdict(list)
    for one in prompts:
        kinds[one.attack, one.kind].append(score(one.text))
    for (attack, kind), scores in sorted(kinds.items()):
        share = sum(value >= threshold for value in scores) / len(scores)
        print(f"| {'attack' if attack else 'benign'} | {kind} | {len(scores)} | {share:.1%} |")


def rules_score(text: str) -> float:
    return score_of(attacks.rules().search(text).weight, None)


def fit(prompts: Sequence[Prompt], steps: int = 20_000, rate: float = 0.05) -> tuple[float, float]:
    """Bias and scale of a logistic curve over the rules' weight, by gradient descent; the scale is above zero."""
    rows = [(attacks.rules().search(one.text).weight, float(one.attack)) for one in prompts if one.development]
    bias, scale = -3.0, 1.0
    for _ in range(steps):
        errors = [
            (1 / (1 + math.exp(-(bias + scale * weight))) - label, weight) for weight, label in rows if weight > 0
        ]
        bias -= rate * sum(error for error, _ in errors) / len(errors)
        scale -= rate * sum(error * weight for error, weight in errors) / len(errors)
    return bias, scale


class WithEncoder:
    """Rules and head together, as the policy asks them, with the default budget."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        attacks.rules()  # compiled before the first prompt's time runs
        encoder = runner.run(self._open())
        assert encoder is not None
        self._encoder = encoder

    def __call__(self, text: str) -> float:
        return self._runner.run(self._score(text))

    async def _open(self) -> RunningEncoder | None:
        return open_encoder(EncoderSettings(), Metrics(CollectorRegistry()).encoder, Clock())

    async def _score(self, text: str) -> float:
        scan = Scan(self._encoder, ScanSettings().budget_windows, 60.0, Clock())
        scan.want(text, Importance.LAST_USER_TURN)
        scan.begin()
        judged = Judged(Kind.USER, text, attacks.rules().search(text))
        await ask(scan, [judged], standing_out())
        scan.close()
        return judged.score


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", action="store_true")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--kinds", action="store_true")
    parser.add_argument("--only", choices=HIDING, help="the other half, hidden in this way")
    options = parser.parse_args()
    ours = own()
    if options.fit:
        bias, scale = fit(ours)
        print(f"RULES_BIAS, RULES_SCALE = {bias:.2f}, {scale:.2f}")
        return
    score: Score = rules_score
    if options.encoder:
        score = WithEncoder(asyncio.Runner())
    threshold = Settings().threshold
    print("| set | attacks / benign | AUC | recall at 1 % FPR | caught at 0.5 | flagged wrongly at 0.5 |")
    print("|---|---|---|---|---|---|")
    measured = [one for one in ours if not one.development]
    if options.only:
        hide = HIDING[options.only]
        hidden = [Prompt(hide(one.text), one.attack, one.kind) for one in measured]
        report(f"our own, the other half, {options.only}", hidden, score, threshold)
        return
    report("our own, development half", [one for one in ours if one.development], score, threshold)
    report("our own, the other half", measured, score, threshold)
    try:
        report("the sample beside the checkout", sample(), score, threshold)
    except pytest.skip.Exception as reason:
        print(f"| {reason} | | | | | |")
    for name, hide in HIDING.items():
        hidden = [Prompt(hide(one.text), one.attack, one.kind) for one in measured]
        report(f"our own, the other half, {name}", hidden, score, threshold)
    if options.kinds:
        report_by_kind(measured, score, threshold)


if __name__ == "__main__":
    main()
