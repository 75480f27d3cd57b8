"""Tuning of fusion weights: one grid for all, every point once, resumable, and the same as searching each point
anew."""

import json

import numpy as np
import pytest
from attrs import evolve

from nnac.decode import tuning
from nnac.decode.search.beam import Beam
from nnac.decode.tuning import Encoded, Point, TuningError, best, grid, tune
from tests.lattices import Lattice, Sentences

VOCABULARY = 5
BEAM = Beam(3, 3)


class Heard(Lattice):
    """A lattice whose features are its frames."""

    def encode(self, features, lengths):
        return features[:, :, 0].astype(int), lengths


def text(ids):
    return " ".join("abcdefg"[k] for k in ids)


@pytest.fixture
def stage():
    r = np.random.default_rng(1)
    features = [r.integers(0, 9, (n, 1)).astype(float) for n in (4, 0, 2, 5, 3)]
    model = Heard(3, VOCABULARY)
    references = ["b c", "", "b", "c c d", "e"]
    return model, features, references, (Sentences(7, VOCABULARY), Sentences(8, VOCABULARY))


def test_every_fusion_gets_the_same_weights_and_bonuses():
    points = grid(weights=(0.2, 0.4), shares=(0.5, 1.0), bonuses=(0.0, 0.3))
    by = {f: [p for p in points if p.fusion == f] for f in tuning.FUSIONS}
    assert {f: len(p) for f, p in by.items()} == {"none": 2, "shallow": 4, "density_ratio": 8, "internal": 8}
    assert [evolve(p, fusion="internal") for p in by["density_ratio"]] == by["internal"]
    assert {(p.weight, p.bonus) for p in by["shallow"]} == {(p.weight, p.bonus) for p in by["internal"]}
    assert len(set(points)) == len(points)


def test_results_are_those_of_searching_each_point_anew_and_survive_a_stop(stage, tmp_path):
    model, features, references, models = stage
    path, points = tmp_path / "r.jsonl", grid(weights=(0.5,), shares=(0.8,), bonuses=(0.0, 0.3))
    heard = Encoded.of(model, features, batch=2)
    whole = list(tune(model, heard, references, text, BEAM, points, models, path, "of this"))
    assert [r.point for r in whole] == points and len({r.per_utterance for r in whole}) > 1
    for r in whole:
        search = evolve(BEAM, fusion=r.point.build(*models))
        frames = [np.asarray(f)[:, :, None].astype(int)[:, :, 0] for f in features]
        texts = [text(search.over(model, f, np.array([len(f)])).best[0].tokens) for f in frames]
        assert tuning.word_errors(references, texts).per_utterance == r.per_utterance
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:20])          # stopped in the middle of a line
    model.calls.clear()
    again = list(tune(model, heard, references, text, BEAM, points[:2], models, path, "of this"))
    assert again == whole[:2] and not model.calls, "what is known is not asked again"
    assert list(tune(model, heard, references, text, BEAM, points, models, path, "of this")) == whole
    assert sorted(path.read_text().splitlines()) == sorted(line.rstrip() for line in lines)


def test_results_of_something_else_are_refused(stage, tmp_path):
    model, features, references, models = stage
    path = tmp_path / "r.jsonl"
    heard, points = Encoded.of(model, features), [Point("none")]
    list(tune(model, heard, references, text, BEAM, points, models, path, "of this"))
    with pytest.raises(TuningError, match="another network"):
        list(tune(model, heard, references, text, BEAM, points, models, path, "of that"))
    path.write_text(json.dumps({"of": "of this"}) + "\nnonsense\n")
    with pytest.raises(TuningError, match=r"r.jsonl:2: not a result"):
        tuning.load(path, "of this")


@pytest.mark.parametrize("text", ["notes of mine", "\n\nnotes", '{"of": 3}', "[]", "[" * 100_000,
                                  '{"of": "this"}\n{"point": {"fusion": "shallow", "weight": "heavy"}, "errors": 1, '
                                  '"words": 2, "per_utterance": []}\n',
                                  '{"of": "this"}\n{"point": {"fusion": "x"}, "errors": 1, "words": 2, '
                                  '"per_utterance": []}\n'], ids=range(7))
def test_a_file_that_is_no_such_results_stays_as_it_is(text, stage, tmp_path):
    """One line of a user's own was written over, and numbers that are none were believed."""
    model, features, references, models = stage
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(TuningError, match="not a result of `nnac tune-fusion`"):
        list(tune(model, Encoded.of(model, features), references, lambda ids: "", BEAM, [Point("none")], models, path,
                  "this"))
    assert path.read_text() == text


def test_the_best_of_each_fusion_is_the_one_with_fewest_errors_then_least_weight():
    results = [tuning.Result(Point("shallow", w), e, 10, ()) for w, e in ((0.4, 3), (0.2, 3), (0.1, 4))]
    assert best(results)["shallow"].point.weight == 0.2
    points = [r.point for r in results]
    assert tuning.at_the_edge(Point("shallow", 0.4), points) and not tuning.at_the_edge(Point("shallow", 0.2), points)


def test_a_point_is_written_as_the_options_of_run():
    assert Point("density_ratio", 0.3, 0.2, 0.1).options() == (
        "--search beam --lm-scale 0.3 --source-scale 0.2 --length-bonus 0.1")
    assert Point("internal", 0.3, 0.2).options() == "--search beam --lm-scale 0.3 --ilm-scale 0.2"
    assert Point("none").options() == "--search beam"
