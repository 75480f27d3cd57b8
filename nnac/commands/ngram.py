"""``nnac ngram --tokens FILE --text FILE … --out FILE.arpa``: count a language model over a model's own tokens.

FILE of --tokens is what `nnac baseline`, `nnac train` or `nnac compile` wrote: it says which tokens there are.  A
text has one sentence a line; --corpus takes the sentences of a split instead.  Interpolated absolute discounting; the
ARPA file is for `nnac run --search beam --lm`.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from nnac.errors import UserError
from nnac.files import read_text

if TYPE_CHECKING:
    from nnac.speech.tokens import Tokens


class TextError(UserError):
    """A text that cannot be read; one line."""


def register(subparsers: Any) -> None:
    from nnac.cli import corpus, sink, source, whole
    from nnac.commands._search import real

    p = subparsers.add_parser("ngram", help="count an n-gram language model", description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tokens", type=source, required=True, metavar="FILE", help="float network, checkpoint or program")
    p.add_argument("--text", type=source, action="append", default=[], metavar="FILE.txt",
                   help="may be given several times")
    p.add_argument("--corpus", type=corpus, metavar="DIR", help="the sentences of a split of a corpus")
    p.add_argument("--split", default="train", help="which (train)")
    p.add_argument("--order", type=whole(1, 32), default=6, metavar="N", help="of the n-grams (6)")
    p.add_argument("--discount", type=real(0.01, 0.99), default=0.75, metavar="D", help="taken from every count (0.75)")
    p.add_argument("--out", type=sink(), required=True, metavar="FILE.arpa")
    p.add_argument("--json", action="store_true", help="one JSON object")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from nnac.decode.ngram import train, write_arpa

    tokens = tokens_of(args.tokens)
    texts = [line for path in args.text for line in sentences(path)]
    if args.corpus:
        from nnac.speech.corpus import load_split

        texts += load_split(args.corpus, args.split).texts
    if not texts:
        raise TextError("nothing to count: give --text FILE.txt or --corpus DIR")
    ids = [tokens.encode(t) for t in texts]
    model = train(ids, tokens.count, args.order, args.discount)
    write_arpa(args.out, model, tokens)
    ngrams = sum(len(words) for words, _ in model.contexts.values())
    heard = ids[:2000]
    figures = dict(sentences=len(texts), tokens=sum(map(len, ids)), order=args.order, contexts=len(model.contexts),
                   ngrams=ngrams, nats_per_sentence=round(model.nats(heard), 3))
    if args.json:
        print(json.dumps(figures))
    else:
        print(f"{args.out}: {ngrams:,} n-grams up to {args.order} of {len(texts):,} sentences, "
              f"{figures['nats_per_sentence']:.2f} nats a sentence on the first {len(heard):,} of them")
    return 0


def sentences(path: str) -> list[str]:
    """The lines of a text that are not empty.  FileError: one line."""
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]


def tokens_of(path: str) -> Tokens:
    """The tokens of a float network, a training module or a program.  CheckpointError, ProgramError: one line."""
    from nnac import checkpoint
    from nnac.decode.front_end import front_end_of
    from nnac.hybrid.scores import Hmm
    from nnac.program import Program
    from nnac.speech.tokens import Tokens

    try:
        meta = checkpoint.load(path).metadata
    except checkpoint.CheckpointError as error:
        if "not an nnac checkpoint" not in str(error):
            raise
        return front_end_of(Program.load(path)).tokens
    end = meta.get("front_end", meta)
    if "hmm" in end:
        return Hmm.from_json(end["hmm"]).tokens
    found = end.get("tokens")
    if found is None:
        raise TextError(f"{path}: carries no tokens")
    return Tokens.from_json(found)
