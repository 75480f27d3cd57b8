"""A run heard with beam search and language models: the float language model as a search asks it, cycles as time counts
them, and a whole small run beside what it is made of."""

import json

import numpy as np
import pytest
import torch
from attrs import evolve

from nnac.decode import tuning
from nnac.decode.fusion import Fusion, real_rows
from nnac.decode.search import ROUNDS
from nnac.decode.search.beam import Beam
from nnac.executors import Subject, executor
from nnac.fused import Fused, sizes, trained_ears
from nnac.latency.simulate import Calls, Costs, Scenario, simulate
from nnac.model.lm_torch import LanguageNetwork, LmConfig
from nnac.report import experiments as ex
from nnac.report.experiments import Searching
from nnac.speech.tokens import LETTERS
from nnac.train.language import FloatLm


def test_a_float_language_model_says_step_by_step_what_it_says_of_a_sentence():
    torch.manual_seed(0)
    lm = FloatLm(LanguageNetwork(LmConfig(vocabulary=LETTERS.count, embedding=8, layers=2, cells=12)).eval(), LETTERS)
    labels = np.array([3, 1, 4, 1, 5])
    with torch.no_grad():
        whole = lm.model(torch.from_numpy(labels)[:, None])[:, 0]
    row, state = lm.start()
    rows = [row]
    for label in labels:
        row, state = lm.step(np.array([label]), state)
        rows.append(row)
    assert np.abs(np.concatenate(rows) - real_rows(whole.numpy())).max() <= 1, "one unit: sums differ in their order"
    together, _ = lm.step(np.array([3, 7]), tuple(np.repeat(s, 2, 0) for s in lm.start()[1]))
    assert np.abs(together[0] - rows[1][0]).max() <= 1 and together.shape == (2, LETTERS.count)


def test_cycles_of_rounds_are_what_time_passes_with():
    free = Scenario(0.02, feature_s=0, launch_s=0, choose_s=0, more_s=0, finish_s=0)
    costs = Costs(1000, 0.06, 0.015, 6, Calls(((1, 10),)), Calls(((1, 3), (4, 5))), Calls(((1, 1),)),
                  (Calls(((1, 7),)), Calls(((1, 2),))), internal=True)
    asked = np.array([(0, 0, 1, 1), (0, 0, 2, 4), (0, 1, 0, 3), (0, 2, 4, 1)], ROUNDS)
    run = simulate(costs, free, 0.24, asked)
    silent = 4 - 3                                        # the fourth step, of which nothing is said: one blank
    assert run.busy == pytest.approx((costs.cycles(4, asked) + silent) / 1000)
    # by hand: 3 + 7 + 2 + 1 and 1; 5 (two predictions in one call of 4) + 14 + 4 + 2 and 4; 3; 5 + 28 + 8 + 4 and 1
    assert costs.cycles(4, asked) == 40 + 14 + 29 + 3 + 46


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A tiny recogniser with two language models, calibrated on noise, its program, and a corpus of a few sentences of
    `home`."""
    pytest.importorskip("espeakng_loader")
    from nnac import compiler
    from nnac.decode.front_end import FrontEnd, TextEnd
    from nnac.policy import loads
    from nnac.speech.corpus import CorpusSpec, build, load_split
    from nnac.speech.features import FeatureSpec
    from nnac.train.families.lm import LanguageModel
    from nnac.train.families.rnnt import Transducer
    from nnac.train.policy import Trained

    folder = tmp_path_factory.mktemp("fused")
    build(folder / "corpus", CorpusSpec(train=0, dev=0, sent=2, voice=0, wavs=0, home_dev=3, home=3), workers=1,
          quiet=True)
    split = load_split(folder / "corpus", "home")
    end = FrontEnd(FeatureSpec(), split.normalisation(), LETTERS)
    rule = 'import "targets/edge.nnac"\npolicy p {\n  model %s\n  target edge\n  layers ** { weights int8 }\n}\n'
    torch.manual_seed(1)

    def trained(model, kind, end, batch):
        plan = loads(rule % model).plan
        module = kind(compiler.lower(plan), None, plan)
        module.calibrate([batch(module)])
        return Trained(module.eval(), plan, end, {})

    x = torch.from_numpy(end.normalisation.apply(np.asarray(split.features[0], np.float32)))[:, None]
    labels = torch.randint(1, LETTERS.count, (5, 1))
    shape = f"vocabulary={LETTERS.count}"
    rnnt = trained(f'rnnt(size="tiny", features=40, stack=3, {shape})', Transducer, end,
                   lambda m: (x, torch.tensor([len(x)]), labels))
    models = {n: trained(f'lm(size="tiny", {shape})', LanguageModel, TextEnd(LETTERS), lambda m: (labels,))
              for n in ("lm", "source_lm")}
    return folder, rnnt, models, compiler.program(rnnt, models)


def test_a_run_is_tuned_searched_timed_and_compared_and_nothing_is_done_twice(stage, monkeypatch):
    folder, rnnt, models, program = stage
    how = Searching("home", beams=(1, 2), elsewhere=2, utterances=1, tuned_at=2, weights=(0.3,), shares=(0.5, 1.0),
                    bonuses=(0.0,), compared=2)
    fused = Fused(how, folder / "corpus", ("home", "sent"), folder)
    subject = Subject(rnnt, compiled=program, languages=models)
    with trained_ears(subject) as ears:
        found = fused(ears, "a", program, subject)
    assert [(s.fusion, s.beam) for s in found] == [(f, k) for f in ("none", "density_ratio") for k in (1, 2)]
    assert all(s.checked > 1000 and s.different == s.different_nbest == 0 for s in found)
    assert [set(s.heard) for s in found] == [{"home"}, {"home", "sent"}] * 2
    assert len(found[1].heard["sent"].errors) == 1 and len(found[0].heard["home"].errors) == 3
    point = tuning.best(list(tuning.load(folder / "tuned.jsonl", json.loads(
        (folder / "tuned.jsonl").read_text().splitlines()[0])["of"]).values()))["density_ratio"].point
    assert found[2].options == point.options() and point.weight == 0.3 and "--source-scale" in point.options()
    # the emulator, asked for the same search, takes these cycles
    from nnac.runtime import recognise
    split = fused._split("home")
    features = [rnnt.front.normalisation.apply(np.asarray(f, np.float32)) for f in split.features]
    search = Beam(2, fusion=Fusion(("lm", "source_lm"), (point.weight, -point.less), bonus=point.bonus))
    there = recognise(subject, features, 1.0, split.texts, quiet=True, search=search)
    assert there.cycles_per_frame == pytest.approx(found[3].cycles_per_frame, abs=0.06)
    assert there.errors.per_utterance == tuple(int(c, 36) for c in found[3].heard["home"].errors)
    waited = found[3].upl_s
    assert len(waited) == 3 and all(0.2 <= v < 0.3 for v in waited)
    monkeypatch.setattr(Beam, "over", lambda *_: pytest.fail("it is done already"))
    assert fused(ears, "a", program, subject) == found


def test_sizes_tell_a_recogniser_from_what_is_beside_it(stage):
    _, rnnt, models, program = stage
    (weights, size), beside = sizes(program, models)
    assert weights == rnnt.plan.graph.weights and set(beside) == {"lm", "source_lm"}
    assert all(w == models[n].plan.graph.weights and 0.5 * w < b < 1.2 * w for n, (w, b) in beside.items())
    assert size + sum(b for _, b in beside.values()) == sum(k["bytes"] for k in program.report["layers"].values())


@pytest.mark.parametrize("change,message", [
    ({"domain": "nowhere"}, "the domain `nowhere` is not among the splits"), ({"fusions": ("shallow",)}, "begins with"),
    ({"fusions": ("none", "deep")}, "no fusion is called `deep`"), ({"beams": ()}, "numbers of hypotheses"),
    ({"weights": ()}, "a grid needs weights")])
def test_a_mistake_in_what_is_searched_is_one_line(change, message):
    good = ex.load("specs/comparison/fusion.toml")
    with pytest.raises(ex.ExperimentError, match=message):
        ex._checked(evolve(good, search=evolve(good.search, **change)))


def test_executors_of_a_run_agree_on_its_language_models(stage):
    _, rnnt, models, program = stage
    subject = Subject(rnnt, compiled=program, languages=models)
    assert set(executor("emulator", subject).inputs) == {"encoder", "prediction", "joint", "lm", "source_lm"}
