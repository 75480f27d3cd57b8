"""The parts of a hybrid that need no network: lexicon, topology, Viterbi, flat start, states, alignments, graph.

The lexicon here has three words and four phones, small enough that every way to say a sentence can be written out.
"""

import itertools
import math

import numpy as np
import pytest
from attrs import evolve

from nnac.checkpoint import CheckpointError
from nnac.cli import main
from nnac.decode import ngram
from nnac.hybrid import alignments, gaussians, graph, topology
from nnac.hybrid.alignments import AlignmentError, Alignments, Labels
from nnac.hybrid.decoder import Decoder
from nnac.hybrid.graph import GraphError
from nnac.hybrid.lexicon import OWN, Lexicon, LexiconError, read_lexicon
from nnac.hybrid.scores import Hmm, best_states, likelihoods
from nnac.hybrid.states import Inventory, InventoryError, chosen
from nnac.hybrid.topology import START, utterance
from nnac.hybrid.viterbi import best_path, best_paths
from nnac.speech import sentences
from nnac.speech.corpus import Recipe, Split

SMALL = Lexicon({"ab": (("A", "B"),), "c": (("C",),), "the": (("D", "A"), ("D", "B"))})


def ways(words, lexicon):
    """Every sequence of (phone, left) that says the words: pronunciations, and silence or none around each word."""
    for pauses in itertools.product((0, 1), repeat=len(words) + 1):
        for said in itertools.product(*(lexicon.said(w) for w in words)):
            phones = [0] * pauses[0] + [p for s, pause in zip(said, pauses[1:], strict=True)
                                        for p in (*s, *[0] * pause)]
            yield [(p, 0 if p == 0 else before) for p, before in zip(phones, [0, *phones], strict=False)]


def lasting(phones, frames):
    """Every sequence of units of ``frames`` frames that a sequence of phones makes."""
    if not phones:
        if frames == 0:
            yield []
        return
    (phone, left), *others = phones
    for held in range(1, frames + 1):
        for rest in lasting(others, frames - held):
            yield [(phone, left, 0), *[(phone, left, 1)] * (held - 1), *rest]


# ------------------------------------------------------------ lexicon

def test_the_topology_is_shown_without_a_corpus(capsys):
    assert main(["align", "--topology"]) == 0
    assert capsys.readouterr().out == f"{topology.table(read_lexicon())}\n"


def test_the_lexicon_that_comes_with_nnac_says_every_word_of_the_corpus_and_names_its_licence():
    own = read_lexicon()
    lists = "ONES TEENS TENS NAMES ROOMS DEVICES ITEMS MUSIC DAYS UNITS VERBS COLOURS".split()
    words = {w for name in lists for w in getattr(sentences, name)}
    rng = np.random.default_rng(0)
    texts = [sentences.sentence(rng) for _ in range(3000)]
    own.check([*words, *texts])
    assert len(own.words) == 166 and len(own.phones) == 39 and own.phones[0] == "SIL"
    head = OWN.read_text("utf-8")
    assert "CMUdict" in head and "Carnegie Mellon University" in head and "Redistribution" in head
    assert own.words["the"] == (("DH", "AH"), ("DH", "IY"))
    assert Lexicon.from_json(own.to_json()) == own


def test_words_without_pronunciation_are_one_line(tmp_path):
    with pytest.raises(LexiconError, match=r"`kitchn` has no pronunciation .*did you mean `kitchen`\?.*--lexicon"):
        read_lexicon().check(["turn on the kitchn light"])
    with pytest.raises(LexiconError, match=r"2 words have no pronunciation .*: `xylo`, `zz`; add a line"):
        read_lexicon().check(["zz the xylo"])
    bad = tmp_path / "lexicon.txt"
    bad.write_text("ab A B\nalone\n")
    with pytest.raises(LexiconError, match=rf"{bad}:2: expected `WORD PHONE PHONE …`, found `alone`"):
        read_lexicon(bad)
    bad.write_text(";;; nothing\n")
    with pytest.raises(LexiconError, match="no pronunciations"):
        read_lexicon(bad)


# ------------------------------------------------------------ topology

@pytest.mark.parametrize("text", ["c", "the", "ab c", "the the"])
def test_an_utterances_graph_has_just_the_ways_to_say_it(text):
    """All unit sequences of up to 6 frames, read off the graph, against those written out from the definition."""
    hmm = utterance(text.split(), SMALL)
    sources = [[int(j) for j in row if j != hmm.nowhere] for row in hmm.predecessors]
    for frames in range(1, 7):
        paths = [[i] for i in range(hmm.nodes) if START in sources[i]]
        for _ in range(frames - 1):
            paths = [[*p, i] for p in paths for i in range(hmm.nodes) if p[-1] in sources[i]]
        ends = set(hmm.ends.tolist())
        said = sorted(tuple(map(tuple, hmm.units[p].tolist())) for p in paths if p[-1] in ends)
        expected = {tuple(u) for way in ways(text.split(), SMALL) for u in lasting(way, frames)}
        assert set(said) == expected
        # `the the`: after either A or B; one node sequence for each way, none twice
        assert len(said) == len(set(said))


def test_the_table_shows_the_topology():
    shown = topology.table(SMALL)
    assert topology.PICTURE in shown
    assert "second  1 or more  itself 0.5, the next phone 0.5" in shown and "5 phones: SIL A B C D" in shown


# ------------------------------------------------------------ Viterbi

@pytest.mark.parametrize("seed", range(6))
def test_many_utterances_at_once_have_the_best_paths_of_each(seed):
    rng = np.random.default_rng(seed)
    texts = [rng.choice(["ab", "c", "the"], rng.integers(1, 5)).tolist() for _ in range(7)]
    hmms = [utterance(t, SMALL) for t in texts]
    scores = [rng.normal(0, 3, (int(rng.integers(1, 24)), h.nodes)).astype(np.float32) for h in hmms]
    for s, h, one in zip(scores, hmms, best_paths(scores, hmms), strict=True):
        slow = best_path(s, h)
        assert one.nodes.tolist() == slow.nodes.tolist(), seed
        assert one.score == slow.score or one.score == pytest.approx(slow.score, abs=1e-3)


def test_an_utterance_shorter_than_its_words_has_no_path():
    hmm = utterance(["the", "ab"], SMALL)                               # four phones: four frames at the least
    for frames, length in ((3, 0), (4, 4)):
        scores = np.zeros((frames, hmm.nodes), np.float32)
        for path in (best_path(scores, hmm), best_paths([scores], [hmm])[0]):
            assert len(path.nodes) == length and math.isinf(path.score) == (length == 0)


# ------------------------------------------------------------ flat start

def spoken(count, seed=0, lexicon=SMALL, bins=20):
    """(features [frames, bins], texts, the phone of each frame): every phone a place of its own, with noise."""
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(99).normal(0, 2.0, (len(lexicon.phones), bins)).astype(np.float32)
    features, texts, truth = [], [], []
    for _ in range(count):
        words = rng.choice(list(lexicon.words), rng.integers(2, 5)).tolist()
        said = [p for w in words for p in lexicon.said(w)[rng.integers(len(lexicon.said(w)))]]
        phones = np.repeat([0, *said, 0], [rng.integers(3, 7), *rng.integers(3, 7, len(said)), rng.integers(3, 7)])
        features.append(places[phones] + rng.normal(0, 0.5, (len(phones), bins)).astype(np.float32))
        texts.append(" ".join(words))
        truth.append(phones)
    return features, texts, truth


def test_a_flat_start_finds_the_phones():
    features, texts, truth = spoken(60)
    cepstra = [gaussians.cepstra(f, 1) for f in features]
    hmms = [utterance(t.split(), SMALL) for t in texts]
    model, curve = gaussians.flat_start(cepstra, hmms, len(SMALL.phones), passes=6)
    assert curve == sorted(curve) or curve[-1] > curve[0] + 0.5          # Viterbi training climbs
    paths = gaussians.align(model, cepstra, hmms)
    right = np.concatenate([h.units[p.nodes, 0] == t for h, p, t in zip(hmms, paths, truth, strict=True)])
    assert right.mean() > 0.9


def test_equal_parts_are_silence_speech_silence():
    hmm = utterance(["ab"], SMALL)
    kinds = gaussians.equal_parts(40, hmm)
    assert len(kinds) == 40 and kinds[0] == 0 and kinds[-1] == 1
    assert set(kinds[3:-4].tolist()) == {2, 3, 4, 5}                    # both halves of A and of B
    assert (np.diff(kinds[3:-4]) >= 0).all()


# ------------------------------------------------------------ states

def test_the_most_frequent_contexts_have_states_of_their_own():
    seen = {(1, 2, 0): 500, (1, 2, 1): 90, (2, 0, 0): 500, (3, 1, 1): 49, (0, 0, 0): 9000}
    made = chosen(seen, SMALL, 12)
    assert made.own == ((1, 2, 0), (2, 0, 0)) and made.count == 12
    units = np.array([(1, 2, 0), (1, 2, 1), (1, 0, 0), (0, 0, 1), (2, 0, 0), (4, 3, 1)])
    assert made.states(units).tolist() == [0, 2 + 3, 2 + 2, 2 + 1, 1, 2 + 9]
    assert made.names()[:4] == ["B-A.0", "SIL-B.0", "SIL.0", "SIL.1"] and len(made.names()) == made.count
    again = Inventory.from_json(made.to_json())
    assert again == made and again.digest == made.digest != chosen(seen, SMALL, 11).digest
    for count in (9, 14):                                                # 3,1,1 has 49 frames: one too few
        with pytest.raises(InventoryError, match=rf"{count} states were asked for: 5 phones have 10 .* at most 13"):
            chosen(seen, SMALL, count)


def test_likelihoods_are_posteriors_without_priors():
    hmm = Hmm(Inventory(SMALL), (0, 9, *[19] * 8))
    integers = np.array([[-2048] * 10, [0] * 10])
    expected = 0.5 * (np.array([[-1.0], [0.0]]) - 0.8 * np.log(np.array([1, 10, *[20] * 8]) / 171))
    made = likelihoods(integers, hmm, 0.5, 0.8)
    assert made.dtype == np.float32 and made.flags.c_contiguous and np.abs(made - expected).max() < 1e-5
    assert Hmm.from_json(hmm.to_json()) == hmm and hmm.tokens.decode([2, 1]) == "c ab"
    assert best_states(np.array([[3, 5, 5], [7, 0, 7]])).tolist() == [1, 0]          # of equals the lowest


# ------------------------------------------------------------ alignments

def split(features, texts, name="train"):
    return Split(name, Recipe(), features, texts, ["v"] * len(texts), [1.0] * len(texts))


@pytest.fixture(scope="module")
def aligned():
    train, dev = (split(*spoken(n, seed)[:2], name) for n, seed, name in ((60, 0, "train"), (12, 1, "dev")))
    return train, dev, alignments.flat([train, dev], SMALL, 16, 1)


def test_alignments_go_through_a_file(aligned, tmp_path):
    train, dev, made = aligned
    made.save(tmp_path / "a.ali")
    again = alignments.load(tmp_path / "a.ali")
    assert again.inventory == made.inventory and again.made["by"] == "gaussians" and again.inventory.count == 16
    for s in (train, dev):
        for a, b in zip(again.of(s), made.of(s), strict=True):
            assert (a == b).all()
    assert made.counts().sum() == sum(map(len, train.features)) and alignments.moved(made, again) == 0
    assert [len(x) for x in made.of(train.first(5))] == [len(f) for f in train.features[:5]]


def test_alignments_of_another_corpus_are_one_line(aligned):
    train, _, made = aligned
    with pytest.raises(AlignmentError, match=r"FILE: no alignment of the split `voice` .*dev, train.*nnac align"):
        made.of(evolve_split(train, name="voice"), "FILE")
    shorter = evolve_split(train, features=[train.features[0][:-2], *train.features[1:]])
    with pytest.raises(AlignmentError, match=r"utterance 0 of `train` has \d+ frames of 1, its alignment \d+: align"):
        made.of(shorter)
    other = evolve_split(train, texts=["c c", *train.texts[1:]])
    with pytest.raises(AlignmentError, match=r"of another corpus: `train` has other texts"):
        made.of(other)
    more = evolve_split(train, **{k: getattr(train, k) * 2 for k in ("features", "texts", "voices", "seconds")})
    with pytest.raises(AlignmentError, match="60 utterances of `train` are aligned, the corpus has 120"):
        made.of(more)


def evolve_split(s, **changes):
    return Split(**{k: getattr(s, k) for k in ("name", "recipe", "features", "texts", "voices", "seconds")} | changes)


def test_a_network_that_knows_the_states_finds_them_again(aligned):
    """Scores that are sure of the first alignment give it back; an utterance too short for its words has no labels."""
    train, dev, made = aligned
    count, labels = made.inventory.count, {len(f): [] for f in train.features}
    known = {id(f): s for s_ in (train, dev) for f, s in zip(s_.features, made.of(s_), strict=True)}
    assert labels

    def scores(features):
        return [np.where(np.arange(count) == known[id(f)][:, None], 0.0, -9.0).astype(np.float32) for f in features]

    again = alignments.again([train, dev], made.inventory, 1, scores)
    assert alignments.moved(made, again) == 0 and alignments.moved(made, again, "dev") == 0
    short = split([train.features[0][:2]], ["the ab"])
    none = alignments.again([short], made.inventory, 1, lambda fs: [np.zeros((len(f), count), np.float32) for f in fs])
    assert none.of(short)[0].tolist() == [-1, -1] and none.counts().sum() == 0


def test_damaged_alignments_are_refused(aligned, tmp_path):
    _, _, made = aligned
    for change, what in ((dict(stack=0), "a label of 0 frames"),
                         (dict(splits={"train": evolve(made.splits["train"], frames=np.array([3]))}), "do not fit"),
                         (dict(splits={"train": Labels("x", np.array([1]), np.array([99], np.int16))}),
                          "beyond the 16")):
        evolve(made, **change).save(tmp_path / "bad.ali")
        with pytest.raises(CheckpointError, match=f"does not describe alignments: .*{what}"):
            alignments.load(tmp_path / "bad.ali")
    assert Alignments                                                     # the class is what `evolve` changed


# ------------------------------------------------------------ graph and decoder

TEXTS = ["ab c", "the ab", "c the ab", "the c", "ab ab", "c"]


def small_graph(order):
    inventory = Inventory(SMALL, [(1, 4, 0), (2, 1, 1), (3, 0, 0), (1, 2, 1)])
    hmm = Hmm(inventory, [5] * inventory.count)
    model = ngram.train([hmm.tokens.encode(t) for t in TEXTS], hmm.tokens.count, order, 0.5)
    return model, hmm, graph.build(model.contexts, order, inventory, dict(order=order))


def language_cost(model, words):
    """The cheapest way of the back-off automaton to say the words and end: it may back off where it need not."""
    def step(context, word):
        seen, backoff = model.contexts[context]
        if word in seen:
            to = (*context, word)[max(0, len(context) + 2 - model.order):]
            while to not in model.contexts:
                to = to[1:]
            yield -seen[word], to
        if context:
            for cost, to in step(context[1:], word):
                yield cost - backoff, to

    places = {(0,) if (0,) in model.contexts else (): 0.0}
    for word in [*words, 0]:
        after = {}
        for context, before in places.items():
            for cost, to in step(context, word):
                after[to] = min(after.get(to, math.inf), before + cost)
        places = after
    return min(places.values(), default=math.inf)


def sound_cost(words, hmm, scores):
    """The cheapest way to say the words: every pronunciation, pause and length, written out."""
    best = math.inf
    for way in ways(words, hmm.inventory.lexicon):
        pauses = sum(p == 0 for p, _ in way)
        # of each place where silence may be: taken or not; it is likelier than not at the start
        first = bool(way) and way[0][0] == 0
        inner = pauses - first
        cost = -math.log(0.8 if first else 0.2) - inner * math.log(0.2) - (len(words) - inner) * math.log(0.8)
        for units in lasting(way, len(scores)):
            states = hmm.inventory.states(np.array(units))
            # each frame of either half: stay or leave, a half each
            total = cost + len(units) * math.log(2) - float(scores[np.arange(len(units)), states].sum())
            best = min(best, total)
    return best


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_graph_and_its_decoder_find_the_cheapest_sentence_of_all(order):
    """Against every sentence that six frames can hold, written out: the best, its cost, and the four best."""
    pytest.importorskip("kaldi_decoder", reason="the extra `hybrid` is not installed")
    model, hmm, made = small_graph(order)
    words = list(SMALL.words)
    decoder = Decoder(made, beam=200.0, active=10_000)
    for seed in range(3):
        scores = np.random.default_rng(seed).normal(0, 1.5, (6, hmm.inventory.count)).astype(np.float32)
        able = [ids for n in range(7) for ids in itertools.product((1, 2, 3), repeat=n)
                if sum(len(SMALL.said(words[i - 1])[0]) for i in ids) <= 6]
        every = {ids: language_cost(model, ids) + sound_cost([words[i - 1] for i in ids], hmm, scores)
                 for ids in able}
        ranked = sorted(every, key=every.__getitem__)
        one, = decoder(scores)
        assert one.words == ranked[0] and one.cost == pytest.approx(every[ranked[0]], abs=1e-3)
        assert len(one.steps) == len(one.words) and list(one.steps) == sorted(one.steps)
        four = Decoder(made, beam=200.0, active=10_000)(scores, 4)
        assert four[0].words == ranked[0] and len({s.words for s in four}) == len(four)
        for s in four:
            assert s.cost == pytest.approx(every[s.words], abs=1e-3)
        assert [s.cost for s in four] == sorted(s.cost for s in four)


def test_an_utterance_too_short_for_any_word_is_an_empty_sentence():
    pytest.importorskip("kaldi_decoder", reason="the extra `hybrid` is not installed")
    _, hmm, made = small_graph(2)
    for scores in (np.zeros((0, hmm.inventory.count), np.float32),):
        one, = Decoder(made)(scores)
        assert one.words == () and math.isinf(one.cost)


def test_graphs_go_through_a_file_and_know_their_states(tmp_path):
    _, hmm, made = small_graph(2)
    made.save(tmp_path / "g.graph")
    again = graph.load(tmp_path / "g.graph")
    assert (again.arcs == made.arcs).all() and (again.costs == made.costs).all() and again.words == made.words
    again.check(hmm.inventory)
    with pytest.raises(GraphError, match=r"FILE: of another inventory of states .*`nnac graph`"):
        again.check(Inventory(SMALL), "FILE")
    for change in (dict(arcs=made.arcs[:, :3]), dict(finals=made.finals + made.states), dict(words=("ab",)),
                   dict(costs=made.costs[:-1]), dict(arcs=made.arcs - 1),
                   # a search went round in it without end
                   dict(arcs=np.vstack([made.arcs, [[0, 0, 0, 0]]]).astype(np.int32),
                        costs=np.append(made.costs, np.float32(-1)))):
        evolve(made, **change).save(tmp_path / "bad.graph")
        with pytest.raises(CheckpointError, match="does not describe a decoding graph"):
            graph.load(tmp_path / "bad.graph")
    # the decoder's library read beyond the network's outputs
    beyond = evolve(made, arcs=made.arcs + np.array([0, 0, 10**6, 0], np.int32) * (made.arcs[:, 2:3] > 0))
    with pytest.raises(GraphError, match=r"its arcs read state 1,000,\d+, the network has \d+"):
        beyond.check(hmm.inventory)
    with pytest.raises(GraphError, match="ends no sentence"):
        graph.build({(): ({1: -1.0}, 0.0)}, 1, hmm.inventory)


def test_words_stand_in_arpa_files_as_words(tmp_path):
    model, hmm, _ = small_graph(2)
    ngram.write_arpa(tmp_path / "w.arpa", model, hmm.tokens)
    text = (tmp_path / "w.arpa").read_text()
    assert "\tab c" in text and "▁" not in text
    again = ngram.read_arpa(tmp_path / "w.arpa", hmm.tokens)
    assert again.contexts.keys() == model.contexts.keys()
