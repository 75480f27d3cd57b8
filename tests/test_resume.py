"""A training ends with the same weights bit for bit, wherever it is stopped, however often it is judged and by however
many ranks it is done.

Over the registry: every method of weights and of activations, with every schedule that the linter lets it have, stopped
at a random step.
"""

import random

import numpy as np
import pytest
import torch

from nnac.compression import methods
from nnac.language.check import check_text
from nnac.lower import lower_plan
from nnac.speech.tokens import Tokens
from nnac.train import loop
from nnac.train.families.lm import LanguageModel
from nnac.train.language import LmLearner
from nnac.train.pace import Pace, Run
from nnac.train.sentences import Sentences
from tests.methods import ARGUMENTS

STEPS = 7
POLICY = """
import "specs/targets/edge.nnac"
policy p {{
  model  lm(size="tiny", layers=1)
  target edge
  layers ** {{ weights int8 per_channel; activations int8 percentile(99.99) }}
  layers lm.output {{ activations int16 }}
  layers lm.lstm[*] {{ accumulate {accumulate}; hidden int8 {hidden}; cell int16 {cell} }}
  layers lm.lstm[*].{{input, recurrent}} {{ weights {weights}; {schedule} }}
  training {{ steps 7 steps }}
}}
"""


GIVEN = {"codebook": {"values": [-1, -0.5, -0.2, 0, 0.1, 0.3, 0.6, 1]}}


def spelled(keyword, group):
    """A method with what it requires, as a policy says it."""
    arguments = ", ".join(f"{k}={v}" for k, v in ARGUMENTS.get(keyword, GIVEN.get(keyword, {})).items())
    method = f"{keyword}({arguments})" if arguments else keyword
    found = methods(group)[keyword]
    own = found.takes_bits() or found.fixed_bits is not None
    return method if own or group != "weights" else f"int4 {method}"


SCHEDULES = {
    "": "", "mracos": "regularise mracos(pull=50%, ramp=0..4 steps)", "acosr": "regularise acosr(strength=1e-2)",
    "harden": "harden every(2 steps)", "magnitude": "sparsity magnitude(50%, from=1 steps, to=6 steps, every=2 steps)",
    "csp": "sparsity csp(50%, block=8, from=1 steps, to=6 steps, every=2 steps)",
    "narang": "sparsity narang(50%, from=1 steps, to=6 steps, every=1 steps)",
    "n_m": "sparsity n_m(2, 4, every=2 steps)",
    "obs": "sparsity obs(50%, of=4, from=1 steps, to=6 steps, every=2 steps)",
    "wanda": "sparsity wanda(50%, from=1 steps, to=6 steps, every=2 steps)", "gptq": "round gptq",
    "rate": "regularise rate(pull=50%)",
}


def errors(**settings):
    return [d for d in check_text(POLICY.format(**settings)).diagnostics if d.severity == "error"]


def cases():
    """name -> settings of the policy."""
    out = {}
    for keyword in methods("weights"):
        weights = spelled(keyword, "weights")
        for name, schedule in SCHEDULES.items():
            out[f"{keyword} {name} learned clip"] = dict(weights=weights, schedule=schedule, accumulate="acc32",
                                                         hidden="lsq")
        out[f"{keyword} harden sum16"] = dict(weights=weights, schedule=SCHEDULES["harden"], accumulate="sum16",
                                              hidden="lsq")
    for keyword in methods("hidden"):
        method = "fixed(1)" if keyword == "fixed" else keyword
        for weights in ("sawb", "lloyd_max"):
            out[f"hidden {keyword}, {weights}"] = dict(weights=spelled(weights, "weights"),
                                                       schedule=SCHEDULES["harden"], accumulate="acc32",
                                                       hidden=method)
    for name, settings in out.items():
        settings["cell"] = random.Random(name).choice(["auto", "fraction(11)"])
    return out


# what the linter lets a policy have
CASES = {name: settings for name, settings in cases().items() if not errors(**settings)}


def sentences(count, seed):
    r = np.random.default_rng(seed)
    return Sentences(["".join(r.choice(list("abcdefghij"), r.integers(2, 7))) for _ in range(count)],
                     Tokens("abcdefghijk"))


TRAIN, DEV = sentences(60, 0), sentences(12, 1)


def prepared(settings, pace):
    """A trainer as every process prepares it."""
    torch.manual_seed(0)
    plan = check_text(POLICY.format(**settings)).resolutions[0].plan
    module = LanguageModel(lower_plan(plan), None, plan)
    module.calibrate([(TRAIN.batch(np.arange(20)).labels,)], alike=True)
    return loop.Trainer(LmLearner(module, pace.steps, 3), pace, TRAIN, {})


class StopHere(Exception):
    pass


def trained(fresh, part, dev_every=10**6, stops=()):
    """The state of a module trained to the end by a trainer as ``fresh``, in as many sittings as there are stops and
    one more."""
    for stop in (*stops, None):
        trainer = fresh()
        if part.exists():
            trainer.restore(part)

        def tell(line, stop=stop):
            if line["step"] == stop:
                raise StopHere
        try:
            loop._steps(trainer, 0, 1, Run(every=stop or 100, dev_every=dev_every), DEV, part, tell)
        except StopHere:
            continue
    part.unlink(missing_ok=True)
    return trainer.learner.model.state_dict()


def differing(a, b):
    return [k for k in a if not torch.equal(a[k], b[k])]


@pytest.mark.parametrize("name", CASES)
def test_stopped_anywhere_and_judged_at_any_time_it_ends_with_the_same_bits(name, tmp_path):
    settings, r = CASES[name], random.Random(name)
    pace = Pace(steps=STEPS, batch_frames=100, shards=1, learning_rate=5e-2, warmup=2, ema=r.choice([0.0, 0.6]))
    stops = sorted(r.sample(range(1, STEPS), r.choice([1, 2])))
    whole = trained(lambda: prepared(settings, pace), tmp_path / "a.part")
    judged = trained(lambda: prepared(settings, pace), tmp_path / "b.part", dev_every=r.choice([1, 2, 3]), stops=stops)
    assert not differing(whole, judged), f"stopped at {stops}"


# ---------------------------------------------------------------------------------------------------------------- ranks

SHARDS = 6


def sampled():
    """One schedule of each method of weights, drawn by its name, and each method of hidden states."""
    groups = {}
    for name in CASES:
        groups.setdefault(name if name.startswith("hidden") else name.split()[0], []).append(name)
    return [random.Random(group).choice(names) for group, names in groups.items() if not group.endswith("lloyd_max")]


def pace_of_ranks(name):
    return Pace(steps=4, batch_frames=60, shards=SHARDS, learning_rate=5e-2, warmup=2,
                ema=random.Random(name).choice([0.0, 0.6]))


def one_of_many(rank, world, folder):
    """A rank: trains every sampled case, the first rank judging as it goes; what it ends with is left in ``folder``."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet{world}", rank=rank,
                                         world_size=world)
    out = {}
    for name in sampled():
        trainer = prepared(CASES[name], pace_of_ranks(name))
        loop._steps(trainer, rank, world, Run(every=100, dev_every=1), DEV, folder / "x.part", lambda line: None)
        out[name] = trainer.learner.model.state_dict()
    torch.save(out, folder / f"{world}.{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
@pytest.mark.parametrize("world", [3])
def test_by_any_number_of_ranks_it_ends_with_the_same_bits(world, tmp_path):
    torch.multiprocessing.spawn(one_of_many, (world, tmp_path), nprocs=world)
    ranks = [torch.load(tmp_path / f"{world}.{rank}.pt") for rank in range(world)]
    for name in sampled():
        alone = prepared(CASES[name], pace_of_ranks(name))
        loop._steps(alone, 0, 1, Run(every=100, dev_every=10**6), DEV, tmp_path / "y.part", lambda line: None)
        for rank in ranks:
            assert not differing(alone.learner.model.state_dict(), rank[name]), name


def test_the_registry_is_covered():
    """Each schedule is one that some method takes, and no method is refused everything."""
    taken = {(name.split()[0], name.split()[1]) for name in CASES if "learned" in name}
    assert {keyword for keyword, _ in taken} == set(methods("weights"))
    named = {method for group in ("round", "regularise", "harden", "sparsity") for method in methods(group)}
    assert {"harden" if name == "every" else name for name in named} == set(SCHEDULES) - {""}
    assert {schedule for _, schedule in taken} >= set(SCHEDULES) - {""}
