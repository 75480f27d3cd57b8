"""A transducer of a user's own under a policy: encoder, prediction network and joint as they stand.

    module = nnac.prepare_transducer(encoder=m.encoder, prediction=m.predictor, joint=m.joiner, blank=0,
                                     policy="mine.nnac", example=(features, labels))
    module.calibrate([(features, lengths, labels), …])
    logits, lengths = module(features, lengths, labels)        # [B, T, U + 1, V], as the user numbers labels
    loss = module.loss(logits, lengths, labels, counts)
    module.save("mine.nnc")                                    # nnac compile, run, compare, export

The policy says ``model transducer`` and addresses layers by their names under ``encoder.``, ``prediction.`` and
``joint.``.  Each part is given as a module, or as a method of one (``model.predict``); of what it returns the first is
read.  As with `nnac.prepare`, each is run beside its reading and refused on any difference.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from attrs import evolve
from torch import Tensor, nn

from nnac.capture import PrepareError, Problem
from nnac.capture.exported import as_it_was, unwrapped
from nnac.capture.transducer import BUILDER, Call, CapturedTransducer, axes_of, capture_transducer, signature
from nnac.decode.front_end import FrontEnd
from nnac.decode.tensors import Argument, LabelEnd
from nnac.lower import lower_plan
from nnac.model.rnnt import ENCODER, JOINT, PREDICTION
from nnac.plan import Plan
from nnac.train.families.transducer import OwnTransducer
from nnac.train.prepare import ROOM, OfCaptured, Report, arguments, plan_of, relative, results, tensors

Part = nn.Module | Callable[..., Any]
Example = tuple[tuple[Any, ...], dict[str, Any]]


class PreparedTransducer(OfCaptured, OwnTransducer):
    """A user's transducer in exact integers."""

    def __init__(self, made: CapturedTransducer, plan: Plan) -> None:
        self.made, self.captured = made, made.captured
        super().__init__(lower_plan(plan), self.weights_of(made.captured), plan)
        self.keep_as_captured()

    def forward(self, features: Tensor, lengths: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """features and targets as the encoder and the prediction network take them (batch or time first) -> real logits
        [B, T', U + 1, V], columns as the user numbers labels; lengths [B]."""
        x, y = self.made.features.sequence(features), self.made.labels.sequence(targets)[..., 0]
        heard = torch.tensor([self.made.features.hearing.vectors(int(n)) for n in lengths], device=lengths.device)
        logits, lengths = super().forward(x, heard, self.ours(y))
        out = torch.empty_like(logits)
        out[..., torch.tensor(self.order, device=out.device)] = logits
        return out, lengths

    def loss(self, logits: Tensor, lengths: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        """The transducer loss of what `forward` returned, summed over the batch."""
        y = self.made.labels.sequence(targets)[..., 0]
        return super().loss(logits[..., torch.tensor(self.order, device=logits.device)], lengths, self.ours(y), counts)

    def save(self, path: str | os.PathLike[str], front: FrontEnd | None = None) -> None:
        """One checkpoint that `nnac compile`, `run`, `compare` and `export` take.

        front  features, normalisation and tokens (blank first) of a model that is to hear audio; without it the saved
        model takes arrays of features and gives labels.  PrepareError: it is another model's
        """
        from nnac.train.policy import save_module

        heard, labels = self.made.features, len(self.order)
        if front is not None and (front.features.bins, front.outputs) != (heard.width, labels):
            raise PrepareError([Problem(f"the model hears {heard.width} features and chooses from {labels} labels; the "
                                        f"front end makes {front.features.bins} features, and has {front.outputs} "
                                        f"labels, the blank among them", f"`FeatureSpec(bins={heard.width})`, and "
                                        f"tokens of the {labels - 1} labels without the blank")])
        end = LabelEnd(heard, self.order[0], labels) if front is None else evolve(front, hears=heard.hears)
        save_module(path, self, self.plan, end, {})

    def original_state_dict(self, part: str) -> dict[str, Tensor]:
        """The float weights of ``encoder``, ``prediction`` or ``joint`` under the names that its own module has for
        them.  PrepareError where a parameter was folded from others."""
        from nnac.train.prepare import original

        found = original(self, self.captured, self.made.original)
        return {n.removeprefix(f"{part}."): w for n, w in found.items() if n.startswith(f"{part}.")}


def _module(part: Part, what: str) -> nn.Module:
    if isinstance(part, nn.Module):
        return unwrapped(part)
    owner = getattr(part, "__self__", None)
    if isinstance(owner, nn.Module):
        return Call(owner, part.__name__)
    raise PrepareError([Problem(f"{what}= is a {type(part).__name__}",
                                "a module, or a method of one: `model.predict`")])


def _read(encoder: Part, prediction: Part, joint: Part, example: Any, blank: int,
          start: str) -> tuple[dict[str, nn.Module], dict[str, Example], CapturedTransducer]:
    models = {name: _module(part, name) for name, part in ((ENCODER.name, encoder), (PREDICTION.name, prediction),
                                                           (JOINT.name, joint))}
    if not isinstance(example, Mapping):
        if not isinstance(example, (tuple, list)) or len(example) != 2:
            raise PrepareError([Problem("the example is not (features, labels)",
                                        "or a dictionary of `encoder`, `prediction` and, if it takes more than the two "
                                        "sequences, `joint`, each the arguments of its call")])
        example = dict(zip((ENCODER.name, PREDICTION.name), example, strict=True))
    if unknown := set(example) - set(models) or {ENCODER.name, PREDICTION.name} - set(example):
        raise PrepareError([Problem(f"the example has or lacks {', '.join(f'`{n}`' for n in sorted(unknown))}",
                                    "`encoder`, `prediction` and perhaps `joint`")])
    examples = {}
    for name, given in example.items():
        args, kwargs = arguments(given)
        try:
            bound = signature(models[name]).bind(*args, **kwargs)
        except TypeError as error:
            raise PrepareError([Problem(f"the example does not fit the {name}'s forward: {error}")]) from None
        examples[name] = bound.args, bound.kwargs
    made, joined = capture_transducer(models, examples, blank, start)
    return models, examples | {JOINT.name: joined}, made


def check_transducer(*, encoder: Part, prediction: Part, joint: Part, example: Any, blank: int = 0,
                     start: str = "blank") -> Report:
    """As `nnac.check`, of a transducer."""
    try:
        _, _, made = _read(encoder, prediction, joint, example, blank, start)
    except PrepareError as error:
        return Report((), (), error.problems)
    return Report(tuple(f"{x.path}: {x.kind}, {x.width} wide, in `{x.entry}`" for x in made.captured.graph),
                  made.captured.notes, (), made.captured.graph)


def prepare_transducer(*, encoder: Part, prediction: Part, joint: Part, policy: Any, example: Any, blank: int = 0,
                       start: str = "blank") -> PreparedTransducer:
    """See the module.

    example  (features, labels), or a dictionary of the calls' arguments: ``encoder``, ``prediction``, ``joint``
    blank    the blank's number among the labels; -1: the last one      start  what the prediction network is given
    before the first label: ``blank``, or ``zeros``, an embedding of nothing
    PrepareError: parts without an integer operator, or read otherwise than they compute.  DiagnosticError: everything
    that is wrong with the policy.
    """
    models, examples, made = _read(encoder, prediction, joint, example, blank, start)
    module = PreparedTransducer(made, plan_of(policy, made.captured.graph, BUILDER))
    module.eval()
    agree(models, examples, module)
    return module.train(models[ENCODER.name].training)


# ------------------------------------------------------------------------------------------------------------- checking

@torch.no_grad()
def agree(models: Mapping[str, nn.Module], examples: Mapping[str, Example], module: PreparedTransducer) -> None:
    """Refuse (PrepareError) unless each part and its reading in real numbers give the same, encoder and prediction at
    two lengths."""
    room = ROOM.get(module.captured.dtype, 1e-4)
    for name, argument, result in ((ENCODER.name, module.made.features, module.made.frames),
                                   (PREDICTION.name, module.made.labels, module.made.predictions)):
        args, kwargs = examples[name]
        given = tensors(signature(models[name]), args, kwargs)
        at = next(i for i, x in enumerate(given) if x.is_floating_point() != argument.label)
        pace = module.graph.values[module.graph.inputs[name][0]].rate
        short = _shorter(given[at], argument, pace)
        for x in [given[at], *([] if short is None else [short])]:
            a, k = _replaced(args, given[at], x), {n: _replaced((v,), given[at], x)[0] for n, v in kwargs.items()}
            with as_it_was(models[name]):
                theirs = results(models[name](*a, **k))[0]
            with module.real_numbers():
                values = {module.graph.inputs[name][0]: argument.sequence(x) if argument.label
                          else argument.sequence(x.float())}
                state = module._state(name, next(iter(values.values())).shape[1], module._like())
                if argument.label:
                    values = {n: module.ours(v) for n, v in values.items()}
                module.run(name, values, {n: argument.label for n in values}, state)
                ours = result.arranged(values[result.name])
            _same(ours, theirs, room, f"the {name}")
    args, kwargs = examples[JOINT.name]
    with as_it_was(models[JOINT.name]):
        theirs = results(models[JOINT.name](*args, **kwargs))[0]
    given = [x for x in tensors(signature(models[JOINT.name]), args, kwargs) if x.is_floating_point()]
    values = {n: _crossed(x.float(), roles) for x, (n, roles) in zip(given, module.made.crossing, strict=False)}
    with module.real_numbers():
        for node in module.graph.nodes:
            if node.path.startswith(f"{JOINT.name}."):
                values[node.output] = module.layer(node.path).reals([values[i] for i in node.inputs], {}, None)
    y = values[module.graph.outputs[JOINT.name][0]]
    logits = torch.empty_like(y)
    logits[..., torch.tensor(module.order)] = y
    if module.made.after:
        logits = torch.log_softmax(logits, -1)
    _same(_uncrossed(logits, axes_of(module.made.logits), tuple(theirs.shape)), theirs, room, "the joint")


def _same(ours: Tensor, theirs: Tensor, room: float, what: str) -> None:
    if relative(ours.to(theirs.dtype), theirs) > room:
        raise PrepareError([Problem(f"nnac reads {what} otherwise than it computes: the results differ by "
                                    f"{relative(ours.to(theirs.dtype), theirs):.2g} of their size",
                                    "please report it; nothing was changed")])


def _shorter(x: Tensor, argument: Argument, pace: int) -> Tensor | None:
    """The example a step shorter; None where it has no more than that."""
    axis = argument.roles.index("time")
    less = argument.hearing.frames(pace)
    shorter = x.shape[axis] - less
    return x.narrow(axis, 0, shorter).contiguous() if shorter > less and argument.hearing.steps(shorter) else None


def _replaced(args: tuple[Any, ...], old: Tensor, new: Tensor) -> tuple[Any, ...]:
    """The arguments with one tensor in another's place; lengths that fitted the old one fit the new one."""
    return tuple(new if a is old else a for a in args)


def _crossed(x: Tensor, roles: tuple[str, ...]) -> Tensor:
    """A sequence of the joint's, its axes named, as [B, T, U, C] with ones where it has no axis."""
    order = ("batch", "time", "label")
    kept = x.reshape([n for n, role in zip(x.shape, roles, strict=False) if role] + [x.shape[-1]])
    named = [role for role in roles if role]
    y = kept.permute(*(named.index(r) for r in order if r in named), kept.ndim - 1)
    sizes = iter(y.shape)
    return y.reshape([next(sizes) if r in named else 1 for r in order] + [x.shape[-1]])


def _uncrossed(y: Tensor, axes: list[str], shape: tuple[int, ...]) -> Tensor:
    """[B, T, U, V] as the user's joint returns it."""
    order = ("batch", "time", "label")
    named = [a for a in axes if a]
    return y.permute(*(order.index(a) for a in named), *(i for i, r in enumerate(order) if r not in named), 3).reshape(
        shape)
