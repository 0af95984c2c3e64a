"""How good the semantic cache's gates are: hits on paraphrases against hits on near misses, as curves.

    python tests/benchmarks/semantic_quality.py [--texts FILE]

Three sets of pairs written by hand (tests/data), of which nothing was trained on any. The guard's rules, the verifier's
state and its threshold were chosen with the first two in view; with the last one nothing was. Every near miss is a hard
one: no unrelated question is among them. `--texts` takes lines of JSON, each with a `text`, that nobody wrote as pairs:
what is near in there, and what passes, to be read.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from extproc.config.encoder import EncoderDevice
from extproc.detection.near_misses import refusal
from extproc.inference import minilm
from extproc.inference.local import LocalEngine
from extproc.inference.verifier import files
from extproc.inference.verifier.local import judge_all
from extproc.inference.verifier.tokens import PairTokenizer
from extproc.policies.semantic_settings import Settings
from tests.helpers.semantic import FRESH, SEEN, UNSEEN, NearPair, pairs, verifier_folder

_LONGEST_BYTES = 300
SUITE = ("polarity", "number", "entity", "order")
SIMILARITIES = (0.85, 0.9, 0.925, 0.95, 0.975)
VERDICTS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9)


class Judged:
    """What each gate says of some pairs."""

    def __init__(self, found: Sequence[NearPair]) -> None:
        self.pairs = found
        self.same = np.array([pair.same for pair in found])
        self.similarity = np.array(_similarities(found))
        self.guarded = np.array([refusal(pair.one, pair.other) is None for pair in found])
        session = onnxruntime.InferenceSession(str(verifier_folder() / files.MODEL))
        tokenizer = PairTokenizer(verifier_folder() / files.TOKENIZER)
        self.verdict = np.array(judge_all(session, tokenizer, [(pair.one, pair.other) for pair in found]))

    def shares(self, passed: NDArray[np.bool_]) -> str:
        """Hits on paraphrases, hits on near misses."""
        return f"{100 * passed[self.same].mean():5.1f} % / {100 * passed[~self.same].mean():4.1f} %"


def _similarities(found: Sequence[NearPair]) -> list[float]:
    return [(1 + float(_embedding(pair.one) @ _embedding(pair.other))) / 2 for pair in found]


@functools.cache
def _embedding(text: str) -> NDArray[np.float32]:
    engine = _engine()
    return np.frombuffer(engine.run(engine.tokenize([text]))[0].embedding, "<f4")


@functools.cache
def _engine() -> LocalEngine:
    return LocalEngine(minilm.default_folder(), EncoderDevice.CPU, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=pathlib.Path)
    options = parser.parse_args()
    settings = Settings()
    if options.texts is not None:
        _among(options.texts, settings)
        return
    for file in (SEEN, UNSEEN, FRESH):
        judged = Judged(pairs(file))
        print(f"\n{file.name}: {judged.same.sum()} paraphrases, {(~judged.same).sum()} near misses")
        _curve(judged)
        _cosine_alone(judged)
        passed = _passed(judged, settings)
        print(f"defaults ({settings.threshold}, {settings.verifier_threshold}): {judged.shares(passed)}")
        _suite(judged, settings)


def _among(file: pathlib.Path, settings: Settings) -> None:
    texts = sorted({json.loads(line)["text"] for line in file.read_text().splitlines()})
    texts = [text for text in texts if len(text.encode()) <= _LONGEST_BYTES]
    vectors = np.stack([_embedding(text) for text in texts])
    similar = np.triu((1 + vectors @ vectors.T) / 2, 1)
    found = [NearPair(0, texts[one], texts[other], "") for one, other in np.argwhere(similar >= SIMILARITIES[0])]
    judged = Judged(found)
    near = judged.similarity >= settings.threshold
    print(
        f"{len(texts)} texts; {len(found)} pairs at least {SIMILARITIES[0]} similar, {near.sum()} at least the default"
    )
    for pair, passed in zip(found, _passed(judged, settings), strict=True):
        if passed:
            print(f"  passes: {pair.one!r} | {pair.other!r}")


def _passed(judged: Judged, settings: Settings) -> NDArray[np.bool_]:
    near = judged.similarity >= settings.threshold
    return near & judged.guarded & (judged.verdict >= settings.verifier_threshold)


def _curve(judged: Judged) -> None:
    head = "".join(f" verifier {at:<8}" for at in VERDICTS)
    print(f"similarity cosine alone      and the guard     {head}")
    for least in SIMILARITIES:
        near = judged.similarity >= least
        row = [judged.shares(near), judged.shares(near & judged.guarded)]
        row += [judged.shares(near & judged.guarded & (judged.verdict >= at)) for at in VERDICTS]
        print(f"{least:<10} " + "  ".join(row))


def _cosine_alone(judged: Judged) -> None:
    wrong = np.sort(judged.similarity[~judged.same])[::-1]
    for share in (0.0, 0.01, 0.02, 0.05):
        least = wrong[int(share * len(wrong))]
        hits = (judged.similarity[judged.same] > least).mean()
        print(f"cosine alone with at most {share:.0%} false hits: {100 * hits:.1f} % (similarity above {least:.4f})")


def _suite(judged: Judged, settings: Settings) -> None:
    passed = _passed(judged, settings)
    kinds = np.array([pair.kind for pair in judged.pairs])
    print("\nby kind: refused by the guard alone; passed by all gates")
    for kind in sorted(set(kinds)):
        of_kind = kinds == kind
        mark = " (suite)" if kind in SUITE else ""
        guarded = (~judged.guarded & of_kind).sum()
        print(f"  {kind + mark:20} {guarded:3} of {of_kind.sum():3}; {(passed & of_kind).sum()}")


if __name__ == "__main__":
    main()
