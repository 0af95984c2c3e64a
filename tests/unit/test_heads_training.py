"""How the heads are made: the grammar's notation, labels of tokens, measures, and a tiny training run."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from extproc.inference import heads, minilm
from extproc.inference.tokens import Tokenizer
from extproc.inference.training.grammar import Entity, Grammar, Part, load, part_of

examples = pytest.importorskip("extproc.inference.training.examples", reason="needs the training extra")
evaluation = pytest.importorskip("extproc.inference.training.evaluation", reason="needs the training extra")


def test_a_line_is_expanded_and_its_entities_are_kept() -> None:
    rules = {"start": ["<Hi|Hi> {name}, <|im_start|> {other}"], "other": ["at <{PLACE}|{PLACE}>."]}
    grammar = Grammar(rules, Part.TRAINING, lambda name, _: {"name": "Ann", "PLACE": "Rome"}[name])
    draft = grammar.draw("start", random.Random(1))
    assert draft.text == "Hi Ann, <|im_start|> at Rome."
    assert draft.entities == [Entity(24, 28, "PLACE")]


def test_a_name_nobody_knows_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        Grammar({"start": ["{nothing}"]}, Part.TRAINING).say("start", random.Random(1))


def test_the_parts_share_no_phrase_of_a_long_rule() -> None:
    rules = {"long": [f"phrase {number}" for number in range(60)], "short": ["a", "b"]}
    drawn = {part: {Grammar(rules, part).say("long", random.Random(seed)) for seed in range(400)} for part in Part}
    assert drawn[Part.TRAINING].isdisjoint(drawn[Part.HELD_OUT])
    assert drawn[Part.TRAINING] | drawn[Part.HELD_OUT] == set(rules["long"])
    assert all(part_of(phrase) is part for part, phrases in drawn.items() for phrase in phrases)


@pytest.mark.parametrize("files", [examples.ENTITY_FILES, examples.PROMPT_FILES])
def test_every_name_in_every_file_is_known(files: tuple[str, ...]) -> None:
    """So that a misspelt name does not wait for chance to find it."""
    from extproc.inference.training.names import Names

    names, rules = Names(Part.TRAINING), load(*files)
    known = {rule.removesuffix(" *") for rule in rules}
    used = {name for lines in rules.values() for line in lines for name in re.findall(r"\{(\w+)\}", line)}
    for name in used - known:
        assert names.provide(name, random.Random(1)), name


def test_a_seed_makes_the_same_texts_in_every_process() -> None:
    """Python's hashes differ between processes, and so would anything that is drawn from a set."""
    script = (
        "from extproc.inference.training.__main__ import digest;"
        "from extproc.inference.training.examples import Composer;"
        "from extproc.inference.training.grammar import Part;"
        "print(digest(Composer(Part.TRAINING, 4).examples(300, 200, 30)))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_tokens_get_the_label_of_the_entity_they_touch() -> None:
    from extproc.inference.training import batches

    (tokens,) = Tokenizer(minilm.build(minilm.default_folder()).tokenizer).tokenize(["Ann Lee and Bo Wu, Oslo"])
    entities = [Entity(0, 7, "PERSON"), Entity(12, 17, "PERSON"), Entity(19, 23, "LOCATION")]
    labels = batches.entity_labels(tokens, entities)
    assert (labels[0], labels[-1]) == (batches.UNKNOWN, batches.UNKNOWN)
    names = ["B-PERSON", "I-PERSON", "O", "B-PERSON", "I-PERSON", "O", "B-LOCATION"]
    assert [heads.ENTITY_LABELS[label] for label in labels[1:-1]] == names


def test_windows_that_overlap_give_one_entity() -> None:
    found = evaluation.merged([Entity(5, 9, "PERSON"), Entity(0, 3, "PERSON"), Entity(7, 12, "PERSON")])
    assert found == [Entity(0, 3, "PERSON"), Entity(5, 12, "PERSON")]


def test_entity_measures() -> None:
    expected = [[Entity(0, 3, "PERSON"), Entity(5, 9, "PERSON")]]
    found = [[Entity(0, 3, "PERSON"), Entity(6, 9, "PERSON"), Entity(20, 22, "PERSON"), Entity(0, 3, "LOCATION")]]
    figures = evaluation.entity_figures(expected, found)["PERSON"]
    assert (figures["precision"], figures["recall"]) == (pytest.approx(2 / 3), 1)
    assert figures["strict_f1"] == pytest.approx(2 / 5)


def test_guard_measures() -> None:
    negative = np.arange(200) / 1000
    positive = np.array([0.9, 0.5, 0.1985, 0.1])
    figures = evaluation.binary_figures(positive, negative)
    assert figures["recall_at_1_percent"] == 0.75  # two of the 200 may lie above: 0.198 and 0.199
    assert figures["auc"] == pytest.approx((200 + 200 + 199 + 100.5) / 800)


def test_a_tiny_training_run_writes_weights_and_their_report(tmp_path: Path) -> None:
    """The whole command at a thousandth of its size: that it works, not that what it makes is good."""
    from extproc.inference.training.__main__ import run

    report = run(tmp_path, seed=3, scale=0.001, epochs=1, buckets=[64])
    assert report == json.loads((tmp_path / "report.json").read_text())
    made = heads.load(tmp_path / "heads.safetensors")
    assert made.version == report["version"]
    assert made.shape == heads.HeadShape()
    assert np.isfinite(np.concatenate([value.ravel() for value in made.weights.values()])).all()
