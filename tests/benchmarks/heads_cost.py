"""What the heads cost: `python -m tests.benchmarks.heads_cost`. The graph with them beside one without, on one thread.

The two run by turns, so that a change of the machine's mood meets both; each figure is the median of its runs.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import onnxruntime

from extproc.inference import bert_graph, heads, minilm

_RUNS = 40
_LENGTHS = (16, 64, 128)


def sessions() -> dict[str, onnxruntime.InferenceSession]:
    checkpoint = minilm.checkpoint()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graphs = {
        "without": bert_graph.build(checkpoint.shape, checkpoint.weights),
        "with": bert_graph.build(checkpoint.shape, checkpoint.weights, heads.load()),
    }
    return {
        name: onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for name, graph in graphs.items()
    }


def median_ms(found: dict[str, onnxruntime.InferenceSession], tokens: int) -> dict[str, float]:
    ids = np.random.default_rng(1).integers(1000, 30000, (1, tokens))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(_RUNS):
        for name, session in found.items():
            started = time.perf_counter()
            session.run(None, inputs)
            times[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def embedding_difference(found: dict[str, onnxruntime.InferenceSession]) -> float:
    """The largest difference of any number of the embedding, over random texts of several lengths."""
    rng = np.random.default_rng(2)
    largest = 0.0
    for tokens in _LENGTHS:
        ids = rng.integers(1000, 30000, (4, tokens))
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        bare, full = (session.run(["embedding"], inputs)[0] for session in found.values())
        largest = max(largest, float(np.abs(bare - full).max()))
    return largest


def main() -> None:
    found = sessions()
    print(f"largest difference of the embedding: {embedding_difference(found):.1e}")
    for tokens in _LENGTHS:
        took = median_ms(found, tokens)
        more = took["with"] / took["without"] - 1
        print(f"{tokens:4} tokens: {took['without']:.2f} ms without heads, {took['with']:.2f} ms with: {more:+.0%}")


if __name__ == "__main__":
    main()
