"""``nnac train POLICY --float FILE --corpus DIR --out FILE``: train under a policy; ``--text FILE`` where it is a
language model's.

The training module starts from a float network (``nnac baseline``), finds its scales on real data, and computes the
NNA's own integers in every forward pass.  Stop it at any time: called again it goes on, and ends with the same weights.
 Curves: OUT.log.jsonl. Several GPUs or machines: see --job.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnac.plan import Plan
    from nnac.train.pace import Run


def register(subparsers: Any) -> None:
    from nnac.cli import SEED, add_policy_arguments, corpus, network, positive, rate, sink, source, whole
    from nnac.commands._training import add_training_arguments

    p = subparsers.add_parser("train", help="train a model under a policy", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=source, metavar="POLICY")
    p.add_argument("--float", dest="float_path", type=network, metavar="FILE",
                   help="the float network to start from (`demo`: the recogniser that comes with nnac); a network of "
                        "images starts at random")
    data = p.add_mutually_exclusive_group(required=True)
    data.add_argument("--corpus", type=corpus, metavar="DIR", help="what a recogniser learns from")
    data.add_argument("--text", type=source, metavar="FILE",
                      help="what a language model learns from: sentences, one a line")
    data.add_argument("--images", metavar="FILE.npz",
                      help="what a sparse_dnn learns from: `images` [count, neurons] of 0 and 1 and `labels` [count], "
                           "or `digits`: 5,000 of MNIST (extra `images`)")
    data.add_argument("--tensors", type=source, metavar="FILE.npz",
                      help="of an imported model that takes arrays: `features` and `labels` to find its scales on; "
                           "nothing is trained (--steps 0)")
    p.add_argument("--alignments", type=source, metavar="FILE",
                   help="of a hybrid: what `nnac align` wrote of the corpus")
    p.add_argument("--out", type=sink(".part", ".lock", ".log.jsonl"), required=True, metavar="FILE")
    p.add_argument("--steps", type=whole(0), help="instead of the policy's own; 0 calibrates only")
    p.add_argument("--learning-rate", type=rate)
    p.add_argument("--seed", type=SEED)
    p.add_argument("--distil", type=positive, metavar="WEIGHT",
                   help="also learn from the float recogniser's probabilities, with this weight")
    add_training_arguments(p, every=50)
    add_policy_arguments(p)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.cli import definitions
    from nnac.commands._training import misuse, pace_of, run_of, torchrun
    from nnac.compiler import resolve
    from nnac.train.loop import write_job
    from nnac.train.policy import PolicyConfig, task, train

    how, given = run_of(args), pace_of(args, "steps", "learning_rate", "seed", "distil")
    plan = resolve(args.file, args.policy, **definitions(args.define))
    if problem := _unsuited(args, plan):
        return misuse(args, problem)
    if args.tensors:
        return _calibrated(args, plan)
    if args.images:
        return _images(args, plan, given, how)
    if args.text:
        return _language(args, plan, given, how)
    if args.alignments:
        return _hybrid(args, plan, given, how)
    config = PolicyConfig.of(plan, **given)
    if args.job:
        write_job(task(plan, args.float_path, args.corpus, args.out, config), how, args.job)
        print(torchrun(args.job))
        return 0
    last = train(plan, args.float_path, args.corpus, args.out, config, args.processes, quiet=args.json, run=how)[-1]
    if args.json:
        print(json.dumps(last))
    else:
        sys.stdout.write(f"{args.out}: {plan.name}, {last['step']} steps, dev WER {last['dev']:.2f} %\n")
    return 0


def _calibrated(args: argparse.Namespace, plan: Plan) -> int:
    """An imported model that takes arrays: its scales."""
    from nnac.commands._training import misuse
    from nnac.decode.tensors import LabelEnd
    from nnac.tensors import read_arrays
    from nnac.train.policy import save_module
    from nnac.train.saved import SavedModel

    if args.steps != 0:
        return misuse(args, "arrays are calibrated on, not trained: give --steps 0")
    model = SavedModel.load(args.float_path)
    if plan.graph.to_json() != model.graph.to_json():
        return misuse(args, f"the policy says `model {plan.model}`, which is not the model in {args.float_path}")
    if not isinstance(model.end, LabelEnd):
        return misuse(args, f"{args.float_path} hears audio: give --corpus")
    module = model.calibrated(plan, read_arrays(args.tensors, model.end))
    save_module(args.out, module, plan, model.end, dict(steps=0, **model.training))
    print(json.dumps(dict(step=0)) if args.json else f"{args.out}: {plan.name}, calibrated on {args.tensors}")
    return 0


def _unsuited(args: argparse.Namespace, plan: Plan) -> str | None:
    """What the model's family learns from and was not given, or was given and does not learn from."""
    from nnac.train.families import module_of

    wanted = module_of(plan.model.builder).learns_from
    if (wanted == "images") != bool(args.images):
        return (f"--images is a sparse_dnn's: the policy says `model {plan.model}`" if args.images
                else f"`model {plan.model}` learns from images: give --images digits, or --images FILE.npz")
    if args.images and args.float_path:
        return f"--float has no place here: `model {plan.model}` starts at random"
    if not args.images and not args.float_path:
        return "which float network does it start from?  --float FILE, or --float demo"
    if wanted == "alignments" and not args.alignments and not args.text:
        return (f"`model {plan.model}` learns the state of every frame: give --alignments FILE, which `nnac align` "
                f"makes of the corpus")
    if wanted != "alignments" and args.alignments:
        return f"--alignments is a hybrid's: the policy says `model {plan.model}`"
    return None


def _written_or_trained(args: argparse.Namespace, plan: Plan, task: Any, train: Callable[..., Any], how: Run) -> int:
    """A task becomes a job for torchrun, or is carried out by its family's ``train``."""
    from nnac.commands._training import torchrun
    from nnac.train.loop import write_job

    if args.job:
        write_job(task, how, args.job)
        print(torchrun(args.job))
        return 0
    last = train(task, f"training {plan.name}", args.processes, quiet=args.json, run=how)[-1]
    print(json.dumps(last) if args.json
          else f"{args.out}: {plan.name}, {last['step']} steps, {task.measure.format(last['dev'])}")
    return 0


def _hybrid(args: argparse.Namespace, plan: Plan, given: dict[str, Any], how: Run) -> int:
    """The same of a hybrid."""
    from nnac.commands._training import misuse
    from nnac.train.hybrid import policy_task, train
    from nnac.train.policy import PolicyConfig

    if args.distil is not None:
        return misuse(args, "--distil is a transducer's: a hybrid learns the states of its alignment")
    task = policy_task(plan, args.float_path, args.corpus, args.alignments, args.out, PolicyConfig.of(plan, **given))
    return _written_or_trained(args, plan, task, train, how)


def _images(args: argparse.Namespace, plan: Plan, given: dict[str, Any], how: Run) -> int:
    """The same of a network of images."""
    from nnac.commands._training import misuse
    from nnac.train.images import ImagePolicyConfig, policy_task, train

    if args.distil is not None:
        return misuse(args, "--distil needs a recogniser's corpus, and this is a network of images")
    task = policy_task(plan, args.images, args.out, ImagePolicyConfig.of(plan, **given))
    return _written_or_trained(args, plan, task, train, how)


def _language(args: argparse.Namespace, plan: Plan, given: dict[str, Any], how: Run) -> int:
    """The same of a language model."""
    from nnac.commands._training import misuse
    from nnac.train.language import LmPolicyConfig, policy_task, train

    if args.distil is not None:
        return misuse(args, "--distil needs a recogniser's corpus, and this is a language model")
    task = policy_task(plan, args.float_path, args.text, args.out, LmPolicyConfig.of(plan, **given))
    return _written_or_trained(args, plan, task, train, how)
