"""Other toolkits' checkpoints: each map against the toolkit's own forward, in real numbers, then to the integer on the
emulator."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from attrs import evolve
from torch import Tensor, nn
from torch.nn import functional as F

from nnac import checkpoint as container
from nnac import tensors as arrays_
from nnac.cli import main
from nnac.executors import Subject
from nnac.imports import maps
from nnac.imports.files import ImportError_, tensors
from nnac.imports.model import captured, imported, read_tokens
from nnac.language.check import check_file
from nnac.train.saved import SavedModel
from tests import published

V, W = 9, 8
Forward = Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]      # weights, [B, T, W], [B, U] -> [B, T', U + 1, V]


def lstm(s: dict[str, Tensor], name: str, x: Tensor, layers: int = 1, *, project: int = 0) -> Tensor:
    """torch.nn.LSTM of these tensors, batch first, with every layer's step written out."""
    for k in range(layers):
        w, u, b, d = (s[f"{name}.{n}_l{k}"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h = x.new_zeros(len(x), u.shape[1])
        c, out = x.new_zeros(len(x), len(w) // 4), []
        for t in range(x.shape[1]):
            i, f, g, o = (x[:, t] @ w.T + b + h @ u.T + d).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            h = h @ s[f"{name}.weight_hr_l{k}"].T if project else h
            out.append(h)
        x = torch.stack(out, 1)
    return x


def gru(s: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """A GRU by its equations, batch first."""
    w, u, b, d = (s[f"{name}.{n}_l0"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h, out = x.new_zeros(len(x), u.shape[1]), []
    for t in range(x.shape[1]):
        (r, z, n), (p, q, m) = (x[:, t] @ w.T + b).chunk(3, -1), (h @ u.T + d).chunk(3, -1)
        z = torch.sigmoid(z + q)
        h = z * h + (1 - z) * torch.tanh(n + torch.sigmoid(r + p) * m)
        out.append(h)
    return torch.stack(out, 1)


def linear(s: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, s[f"{name}.weight"], s.get(f"{name}.bias"))


def norm(s: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"])


def stacked(x: Tensor, k: int) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1] // k, k * x.shape[2])


def meet(f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    return f.unsqueeze(2), g.unsqueeze(1)


def before(rows: Tensor, y: Tensor, first: int | None) -> Tensor:
    """Embeddings of the labels with what stands before them: a label, or nothing."""
    e = rows[y]
    start = torch.zeros_like(e[:, :1]) if first is None else rows[torch.full_like(y[:, :1], first)]
    return torch.cat([start, e], 1)


class Draw:
    """Random weights by name."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def lstm(self, name: str, size: int, cells: int, layers: int = 1, project: int = 0) -> None:
        made = nn.LSTM(size, cells, layers, proj_size=project) if project else nn.LSTM(size, cells, layers)
        self.state |= {f"{name}.{n}": 1.5 * p.detach() for n, p in made.named_parameters()}

    def gru(self, name: str, size: int, cells: int) -> None:
        self.state |= {f"{name}.{n}": 1.5 * p.detach() for n, p in nn.GRU(size, cells).named_parameters()}

    def matrix(self, name: str, rows: int, columns: int, bias: bool = True) -> None:
        made = nn.Linear(columns, rows, bias=bias)
        self.state |= {f"{name}.{n}": p.detach() for n, p in made.named_parameters()}

    def rows(self, name: str, rows: int, columns: int) -> None:
        self.state[f"{name}.weight"] = torch.randn(rows, columns)

    def norm(self, name: str, width: int) -> None:
        self.state |= {f"{name}.weight": 1 + 0.1 * torch.randn(width), f"{name}.bias": 0.1 * torch.randn(width)}


def mlperf(d: Draw) -> Forward:
    d.lstm("encoder.pre_rnn.lstm", W, 8, 2)
    d.lstm("encoder.post_rnn.lstm", 16, 8, 2)
    d.rows("prediction.embed", V - 1, 8)
    d.lstm("prediction.dec_rnn.lstm", 8, 8, 2)
    d.matrix("joint_enc", 12, 8)
    d.matrix("joint_pred", 12, 8)
    d.matrix("joint_net.2", V, 12)

    def forward(s: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        f = lstm(s, "encoder.post_rnn.lstm", stacked(lstm(s, "encoder.pre_rnn.lstm", x, 2), 2), 2)
        g = lstm(s, "prediction.dec_rnn.lstm", before(s["prediction.embed.weight"], y, None), 2)
        a, b = meet(linear(s, "joint_enc", f), linear(s, "joint_pred", g))
        return linear(s, "joint_net.2", torch.relu(a + b))

    return forward


def mlperf_inference(d: Draw) -> Forward:
    d.lstm("encoder.pre_rnn.lstm", W, 8, 1)
    d.lstm("encoder.post_rnn.lstm", 16, 8, 1)
    d.rows("prediction.embed", V - 1, 8)
    d.lstm("prediction.dec_rnn.lstm", 8, 4, 1)
    d.matrix("joint.net.0", 12, 12)
    d.matrix("joint.net.3", V, 12)

    def forward(s: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        f = lstm(s, "encoder.post_rnn.lstm", stacked(lstm(s, "encoder.pre_rnn.lstm", x), 2))
        g = lstm(s, "prediction.dec_rnn.lstm", before(s["prediction.embed.weight"], y, None))
        a, b = meet(f, g)
        both = torch.cat([a.expand(-1, -1, b.shape[2], -1), b.expand(-1, a.shape[1], -1, -1)], -1)
        return linear(s, "joint.net.3", torch.relu(linear(s, "joint.net.0", both)))

    return forward


def icefall(d: Draw) -> Forward:
    """transducer_lstm behind its subsampling, with the decoder without recurrence."""
    d.lstm("encoder.rnn", W, 12, 2, project=8)
    d.matrix("encoder.encoder_output_layer.1", 12, 8)
    d.rows("decoder.embedding", V, 8)
    d.state["decoder.conv.weight"] = torch.randn(8, 4, 2) / 2
    d.matrix("joiner.encoder_proj", 8, 12)
    d.matrix("joiner.decoder_proj", 8, 8)
    d.matrix("joiner.output_linear", V, 8)

    def forward(s: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        f = linear(s, "encoder.encoder_output_layer.1", lstm(s, "encoder.rnn", x, 2, project=8))
        e = F.pad(before(s["decoder.embedding.weight"], y, 0).permute(0, 2, 1), (1, 0))
        g = torch.relu(F.conv1d(e, s["decoder.conv.weight"], groups=2).permute(0, 2, 1))
        a, b = meet(linear(s, "joiner.encoder_proj", f), linear(s, "joiner.decoder_proj", g))
        return linear(s, "joiner.output_linear", torch.tanh(a + b))

    return forward


def nemo(d: Draw) -> Forward:
    d.matrix("encoder.pre_encode.proj_out", 8, 4 * W)
    for i in (0, 3):
        d.lstm(f"encoder.layers.{i}", 8, 12, 1, project=8)
        d.norm(f"encoder.layers.{i + 1}", 8)
    d.rows("decoder.prediction.embed", V, 8)
    d.state["decoder.prediction.embed.weight"][V - 1] = 0                       # the blank is padding
    d.lstm("decoder.prediction.dec_rnn.lstm", 8, 8)
    d.matrix("joint.enc", 8, 8)
    d.matrix("joint.pred", 8, 8)
    d.matrix("joint.joint_net.2", V, 8)

    def forward(s: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        f = linear(s, "encoder.pre_encode.proj_out", stacked(x, 4))
        for i in (0, 3):
            f = norm(s, f"encoder.layers.{i + 1}", lstm(s, f"encoder.layers.{i}", f, project=8))
        g = lstm(s, "decoder.prediction.dec_rnn.lstm", before(s["decoder.prediction.embed.weight"], y, None))
        a, b = meet(linear(s, "joint.enc", f), linear(s, "joint.pred", g))
        return linear(s, "joint.joint_net.2", torch.relu(a + b))

    return forward


def espnet(d: Draw) -> Forward:
    d.lstm("encoder.enc.0.nbrnn", W, 8, 2)
    d.matrix("encoder.enc.0.l_last", 8, 8)
    d.rows("decoder.embed", V, 8)
    d.lstm("decoder.decoder.0", 8, 8)
    d.lstm("decoder.decoder.1", 8, 8)
    d.matrix("joint_network.lin_enc", 8, 8)
    d.matrix("joint_network.lin_dec", 8, 8, bias=False)
    d.matrix("joint_network.lin_out", V, 8)

    def forward(s: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        f = torch.tanh(linear(s, "encoder.enc.0.l_last", lstm(s, "encoder.enc.0.nbrnn", x, 2)))
        g = lstm(s, "decoder.decoder.1", lstm(s, "decoder.decoder.0", before(s["decoder.embed.weight"], y, 0)))
        a, b = meet(linear(s, "joint_network.lin_enc", f), linear(s, "joint_network.lin_dec", g))
        return linear(s, "joint_network.lin_out", torch.tanh(a + b))

    return forward


def speechbrain(d: Draw) -> Forward:
    d.lstm("enc.rnn", W, 8, 2)
    d.matrix("enc_lin.w", 8, 8)
    d.rows("emb.Embedding", V, 8)
    d.gru("dec.rnn", 8, 8)
    d.matrix("dec_lin.w", 8, 8)
    d.matrix("transducer_lin.w", V, 8, bias=False)

    def forward(s: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        f = linear(s, "enc_lin.w", lstm(s, "enc.rnn", x, 2))
        g = linear(s, "dec_lin.w", gru(s, "dec.rnn", before(s["emb.Embedding.weight"], y, 0)))
        a, b = meet(f, g)
        return linear(s, "transducer_lin.w", F.leaky_relu(a + b))

    return forward


def torchaudio(d: Draw) -> Forward:
    d.matrix("transcriber.input_linear", 4, W, bias=False)
    d.lstm("transcriber.lstm", 16, 8)
    d.matrix("transcriber.output_linear", 8, 8)
    d.norm("transcriber.layer_norm", 8)
    d.rows("predictor.embedding", V, 8)
    d.norm("predictor.input_layer_norm", 8)
    for i in range(2):
        d.matrix(f"predictor.lstm_layers.{i}.x2g", 32, 8)
        d.matrix(f"predictor.lstm_layers.{i}.p2g", 32, 8, bias=False)
    d.matrix("predictor.linear", 8, 8)
    d.norm("predictor.output_layer_norm", 8)
    d.matrix("joiner.linear", V, 8)

    def forward(s: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        f = lstm(s, "transcriber.lstm", stacked(linear(s, "transcriber.input_linear", x), 4))
        f = norm(s, "transcriber.layer_norm", linear(s, "transcriber.output_linear", f))
        g = norm(s, "predictor.input_layer_norm", before(s["predictor.embedding.weight"], y, V - 1))
        for i in range(2):                                      # the module's own loop, without its layer norm
            h, c, out = g.new_zeros(len(g), 8), g.new_zeros(len(g), 8), []
            for gates in linear(s, f"predictor.lstm_layers.{i}.x2g", g).unbind(1):
                a, f_, n, o = (gates + linear(s, f"predictor.lstm_layers.{i}.p2g", h)).chunk(4, 1)
                c = f_.sigmoid() * c + a.sigmoid() * n.tanh()
                h = o.sigmoid() * c.tanh()
                out.append(h)
            g = torch.stack(out, 1)
        g = norm(s, "predictor.output_layer_norm", linear(s, "predictor.linear", g))
        a, b = meet(f, g)
        return linear(s, "joiner.linear", torch.relu(a + b))

    return forward


def plain(d: Draw) -> Forward:
    d.lstm("encoder.lstm", W, 8)
    d.rows("prediction.embedding", V, 8)
    d.lstm("prediction.lstm", 8, 8)
    d.matrix("joint.output", V, 8)

    def forward(s: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        g = lstm(s, "prediction.lstm", before(s["prediction.embedding.weight"], y, 0))
        a, b = meet(lstm(s, "encoder.lstm", x), g)
        return linear(s, "joint.output", torch.tanh(a + b))

    return forward


TOOLKITS = {"mlperf": mlperf, "mlperf-inference": mlperf_inference, "icefall-lstm": icefall, "nemo": nemo,
            "espnet": espnet, "speechbrain": speechbrain, "torchaudio": torchaudio, "plain": plain}
POLICY = """
import "targets/edge.nnac"
policy mine {{
  model  saved("{file}")
  target edge
  layers ** {{ weights int8 per_channel; activations int8 percentile(99.99) }}
}}
"""


def checkpoint(name: str) -> tuple[dict[str, Tensor], Forward]:
    torch.manual_seed(0)
    draw = Draw()
    return draw.state, TOOLKITS[name](draw)


def test_every_map_has_its_forward():
    assert sorted(TOOLKITS) == maps.names()


@pytest.mark.parametrize("name", TOOLKITS)
def test_a_map_is_the_toolkits_forward_and_runs_to_the_integer(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, forward = checkpoint(name)
    torch.save({"model": state, "epoch": 3}, "m.pt")
    found = maps.named(name)
    x = torch.randn(2, 16, W)
    blank = found.blank % V
    labels = (blank + 1 + torch.tensor([[0, 1, 4, 3], [1, 2, 5, 0]])) % V
    made = imported("m.pt", found)
    made.save("m.nnc")
    model = SavedModel.load("m.nnc").model
    with torch.no_grad():
        logits, _ = model(made.end.argument.sequence(x), torch.tensor([16, 16]), model.ours(labels).T)
        expected = forward(state, x, labels)
    assert (logits - expected[..., torch.tensor(model.order)]).abs().max() <= 1e-5
    (tmp_path / "p.nnac").write_text(POLICY.format(file="m.nnc"))
    np.savez("x.npz", features=x.numpy(), labels=labels.numpy())
    assert main(["train", "p.nnac", "--float", "m.nnc", "--tensors", "x.npz", "--steps", "0", "--out", "t.nnc"]) == 0
    subject = Subject.load("t.nnc")
    result = arrays_.compare(subject, subject, dict(features=x.numpy()), ("torch", "emulator"))
    assert result.equal and result.compared > 500


def test_files_of_every_kind_and_what_is_none(tmp_path):
    from safetensors.torch import save_file

    state, _ = checkpoint("plain")
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "m.safetensors")
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "m.pth")
    held = io.BytesIO()
    torch.save(state, held)
    with tarfile.open(tmp_path / "m.nemo", "w") as archive:
        entry = tarfile.TarInfo("./model_weights.ckpt")
        entry.size = len(held.getvalue())
        archive.addfile(entry, io.BytesIO(held.getvalue()))
    for name in ("m.safetensors", "m.pth", "m.nemo"):
        read = tensors(tmp_path / name)
        assert set(read) == set(state) and all(torch.equal(read[n], w) for n, w in state.items())
    torch.save({"model": Draw()}, tmp_path / "code.pt")
    (tmp_path / "text.pt").write_text("no tensors")
    torch.save(dict(a=1), tmp_path / "none.pt")
    for name, words in (("code.pt", "nothing of it was run"), ("text.pt", "no checkpoint"), ("none.pt", "no tensors")):
        with pytest.raises(ImportError_, match=words):
            tensors(tmp_path / name)


@pytest.mark.parametrize("change, words", [
    (lambda s: s.pop("joint_enc.bias"), None),
    (lambda s: s.pop("encoder.post_rnn.lstm.weight_hh_l0"), "lacks encoder.post_rnn.lstm.weight_hh_l0"),
    (lambda s: s.update({"encoder.attention.weight": torch.zeros(2, 2)}), "encoder.attention.weight: no layer"),
    (lambda s: s.update({"joint_net.2.weight": torch.zeros(V, 13)}), r"joint_net.2.weight is \[9, 13\]"),
])
def test_a_checkpoint_that_is_another_model_is_refused_by_name(change, words):
    state, _ = checkpoint("mlperf")
    change(state)
    if words is None:
        captured(maps.named("mlperf"), state)
        return
    with pytest.raises(ImportError_, match=words):
        captured(maps.named("mlperf"), state)


def test_a_part_stays_outside_where_it_is_said():
    state, _ = checkpoint("icefall-lstm")
    state["encoder.encoder_embed.conv.0.weight"] = torch.zeros(8, 1, 3, 3)
    with pytest.raises(ImportError_, match="encoder_embed"):
        captured(maps.named("icefall-lstm"), state)
    captured(maps.named("icefall-lstm"), state, outside=("encoder.encoder_embed",))


@pytest.mark.parametrize("text, words", [
    ("encoder = 1", "list of steps"), ("blonk = 2", "did you mean `blank`"),
    ('encoder = [{ lstm = "a", stack = 2 }]', "says one of"), ('encoder = [{ activation = "elu" }]', "leaky_relu"),
    ('encoder = [{ lstm = "a", stride = 2 }]', "`stride`"), ("blank = true", "first, last or a number"),
    ("blank = [1]", "first, last or a number, not a list"), ("a = ", "Invalid value"),
    ("encoder = " + "[" * 3000, "nested absurdly deep"), ("blank = " + "9" * 5000, "thousands of digits"),
    # it went round without end
    ('encoder = [{ each = "encoder", steps = [{ lstm = "encoder.lstm" }] }]', "{i} in its name"),
    ('encoder = [{ each = "a{i}", by = 0, steps = [{ lstm = "a{i}.b" }] }]', "`by` is a whole number from 1"),
    ("encoder = [{ stack = 1e9 }]", "`stack` is a whole number from 1 to 1000"),
    ('encoder = [{ stack = "x" }]', "or the name of an option, not 'x'"),
    ('encoder = [{ conv = "a", stride = "x" }]', "`stride` is a whole number"),
    ('encoder = [{ norm = "a", epsilon = "x" }]', "`epsilon` is a number"),
    ('encoder = [{ lstm = "a..b" }]', "`lstm` names tensors"), ("[options]\nstack = nan", "options are whole numbers")])
def test_a_map_that_is_wrong_says_where(text, words, tmp_path):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(ImportError_, match=words):
        maps.load(tmp_path / "m.toml")


def test_names_that_no_module_takes_and_steps_that_no_memory_holds_are_one_line(tmp_path):
    text = maps.FOLDER.joinpath("plain.toml").read_text("utf-8")
    (tmp_path / "m.toml").write_text(text.replace('"encoder.lstm"', '"runs"'), "utf-8")
    state, _ = checkpoint("plain")
    state = {n.replace("encoder.lstm", "runs"): v for n, v in state.items()}
    with pytest.raises(ImportError_, match=r"these tensors make no model: .*attribute 'runs' already exists"):
        captured(maps.load(tmp_path / "m.toml"), state)
    plain = maps.named("plain")
    with pytest.raises(ImportError_, match=r"steps of 1,000,000 frames of 8 features are more than any model takes"):
        captured(evolve(plain, options={"stack": 1, "a": 1000, "b": 1000}), checkpoint("plain")[0])


def packed(state, inside):
    """A checkpoint whose archive is compressed, one of its members so many zeros."""
    out, whole = io.BytesIO(), io.BytesIO()
    torch.save(state, whole)
    with zipfile.ZipFile(whole) as given, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in given.namelist():
            archive.writestr(name, bytes(inside) if name.endswith("data/0") else given.read(name))
    return out.getvalue()


@pytest.mark.parametrize("make, words", [
    (lambda s: pickled({"a": torch.zeros(1).expand(10**11)}), "400,000,000,000 bytes when unpacked"),
    (lambda s: pickled({"a": torch.zeros(1).half().expand(10**10)}), "40,000,000,000 bytes when unpacked"),
    (lambda s: pickled({"a": torch.empty(10**12, device="meta")}), "`a` is no plain tensor"),
    (lambda s: pickled({"a": torch.ones(3).to_sparse()}), "`a` is no plain tensor"),
    (lambda s: packed({"a": torch.zeros(3)}, 1 << 26), "bytes when unpacked"),
    (lambda s: safetensors.torch.save(s)[:-1], "no checkpoint"),
    (lambda s: pickled({"a": torch.ones(3, dtype=torch.int64)}), "holds no tensors of weights")],
    ids=["repeated", "halves", "meta", "sparse", "packed", "safetensors cut short", "whole numbers"])
def test_a_file_of_tensors_that_are_none_is_one_line(make, words, tmp_path):
    """The first four took as much memory as they promised, or ended in a traceback, and so did the sixth."""
    (tmp_path / "m.pt").write_bytes(make(checkpoint("plain")[0]))
    with pytest.raises(ImportError_, match=words):
        tensors(tmp_path / "m.pt")


def pickled(state):
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


def test_a_graph_in_a_file_that_is_none_is_a_line_of_the_policy(tmp_path):
    """A path that was a number, a width that was none: tracebacks out of lint."""
    state, _ = checkpoint("plain")
    torch.save(state, tmp_path / "m.pt")
    imported(tmp_path / "m.pt", maps.named("plain")).save(tmp_path / "good.nnc")
    file = container.load(tmp_path / "good.nnc")
    policy = tmp_path / "p.nnac"
    policy.write_text(f'import "{Path("specs/targets/edge.nnac").absolute()}"\npolicy p {{\n'
                      f'  model saved("{tmp_path / "m.nnc"}")\n  target edge\n'
                      '  layers ** { weights int8 per_channel; activations int8 percentile(99.99) }\n}\n')
    for change in (lambda g: g["layers"][1].update(path=7), lambda g: g["layers"][1].update(width=None),
                   lambda g: g["layers"][1]["kernels"][0].update(rows=None), lambda g: g["layers"][1].update(kind="x"),
                   lambda g: g["layers"][0].update(attributes={}), lambda g: g.update(layers=[]), lambda g: g.clear(),
                   lambda g: g["layers"][1].update(inputs=[]), lambda g: g["entries"][0].update(outputs=["x"])):
        meta = json.loads(json.dumps(file.metadata))
        change(meta["graph"])
        container.save(tmp_path / "m.nnc", file.tensors, meta)
        found = [d.message for d in check_file(policy).diagnostics]
        assert len(found) == 1 and "m.nnc: not a model graph" in found[0], found
    container.save(tmp_path / "m.nnc", file.tensors, file.metadata)
    assert not check_file(policy).errors


def test_pieces_in_every_order_of_writing(tmp_path):
    for text in ("<blk> 0\na 1\n▁b 2\n", "<blk>\na\n▁b\n", "<blk>\t0\na\t-1.5\n▁b\t-2\n"):
        (tmp_path / "t.txt").write_text(text, "utf-8")
        assert read_tokens(tmp_path / "t.txt", 0).pieces == ("a", "▁b")
    (tmp_path / "t.txt").write_text("a\nb\n<b>\n")
    assert read_tokens(tmp_path / "t.txt", -1).pieces == ("a", "b")
    for text, words in ((f"<blk> 0\na {'9' * 5000}\n", "2 pieces, and the blank"),
                        ("a 1000000000000\nb 0\nc 1\n", "not 0 to 2"),
                        ("", "0 pieces, and the blank is to be number -3"), ("a\n", "1 pieces, and the blank")):
        (tmp_path / "t.txt").write_text(text)
        with pytest.raises(ImportError_, match=words):
            read_tokens(tmp_path / "t.txt", -3)


def test_a_token_file_without_the_blank_is_told_which_line_it_lacks(tmp_path):
    from nnac.imports.maps import named

    torch.manual_seed(0)
    torch.save(published.MLPerf().state_dict(), tmp_path / "m.pt")
    pieces = "abcdefgh"                                            # eight, and the blank behind them
    for text, fits in ((pieces, False), (pieces + "_", True)):
        (tmp_path / "t.txt").write_text("\n".join(text) + "\n")
        tokens = read_tokens(tmp_path / "t.txt", -1)
        if fits:
            assert imported(tmp_path / "m.pt", named("mlperf"), tokens=tokens).tokens.pieces == tuple(pieces)
        else:
            with pytest.raises(ImportError_, match="a line for the blank as well, its 9th"):
                imported(tmp_path / "m.pt", named("mlperf"), tokens=tokens)


def test_a_storage_that_is_missing_is_one_line(tmp_path):
    """PyTorch's older layout names its storages twice; torch asserts that both say the same."""
    torch.save({"weight": torch.ones(4)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "old.pt").read_bytes()
    key = re.findall(rb"\d{8,}", data)[-1]
    at = data.rindex(key)
    other = key[:-1] + (b"7" if key[-1:] != b"7" else b"8")
    (tmp_path / "old.pt").write_bytes(data[:at] + other + data[at + len(key):])
    with pytest.raises(ImportError_, match=r"old\.pt: no checkpoint .*storage key"):
        tensors(tmp_path / "old.pt")


def test_from_a_checkpoint_to_text_on_the_emulator(tmp_path, monkeypatch, capsys):
    """An MLPerf-shaped model, the whole way on the command line."""
    monkeypatch.chdir(tmp_path)
    state, _ = checkpoint("mlperf")
    torch.save(state, "m.pt")
    assert main(["import", "m.pt", "--as", "mlperf", "--out", "m.nnc"]) == 0
    assert main(["new", "m.nnc", "--out", "p.nnac"]) == 0
    capsys.readouterr()
    assert main(["lint", "--strict", "p.nnac"]) == 0
    text = (tmp_path / "p.nnac").read_text()
    assert all(f"layers {layer.path} " in text for layer in SavedModel.load("m.nnc").graph)
    np.savez("x.npz", features=torch.randn(2, 16, W).numpy(), labels=np.array([[1, 2], [3, 4]]))
    assert main(["train", "p.nnac", "--float", "m.nnc", "--tensors", "x.npz", "--steps", "0", "--out", "t.nnc"]) == 0
    assert main(["compile", "t.nnc", "--out", "t.nnp"]) == 0
    assert main(["run", "t.nnp", "--tensors", "x.npz", "--out", "y.npz"]) == 0
    assert main(["compare", "t.nnc", "t.nnp", "--tensors", "x.npz"]) == 0
    with np.load("y.npz") as made:
        assert set(made.files) == {"result_0", "result_1"} and all((made[n] < V - 1).all() for n in made.files)


@pytest.mark.slow
def test_an_imported_model_that_hears_is_trained_and_transcribes(tmp_path, monkeypatch, capsys):
    pytest.importorskip("espeakng_loader")
    import wave

    from nnac.speech.corpus import CorpusSpec, build
    from nnac.speech.tokens import LETTERS

    monkeypatch.chdir(tmp_path)
    build(tmp_path / "corpus", CorpusSpec(train=40, dev=2, sent=0, voice=0, wavs=0), quiet=True)
    torch.manual_seed(0)
    d = Draw()
    d.lstm("encoder.lstm", 40 * 3, 8)
    d.rows("prediction.embedding", LETTERS.count, 8)
    d.lstm("prediction.lstm", 8, 8)
    d.matrix("joint.output", LETTERS.count, 8)
    torch.save(d.state, "m.pt")
    (tmp_path / "tokens.txt").write_text("\n".join(["<blk>", *LETTERS.pieces]) + "\n")
    assert main(["import", "m.pt", "--as", "plain", "--set", "stack=3", "--tokens", "tokens.txt", "--corpus", "corpus",
                 "--out", "m.nnc"]) == 0
    assert main(["new", "m.nnc", "--out", "p.nnac"]) == 0
    assert main(["train", "p.nnac", "--float", "m.nnc", "--corpus", "corpus", "--steps", "1", "--processes", "1",
                 "--distil", "0.5", "--out", "t.nnc", "--json"]) == 0
    with wave.open("a.wav", "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes((np.random.default_rng(0).normal(0, 2000, 12000)).astype("<i2").tobytes())
    assert main(["compare", "t.nnc", "--audio", "a.wav"]) == 0
    capsys.readouterr()
    assert main(["run", "t.nnc", "--audio", "a.wav", "--json"]) == 0
    assert '"text"' in capsys.readouterr().out


@pytest.mark.parametrize("toolkit", ["icefall-lstm", "mlperf"])
def test_an_imported_model_hears_its_toolkits_features_or_says_that_they_are_not_known(toolkit, tmp_path, capsys):
    state, labels = checkpoint(toolkit)[0], V
    torch.save(state, tmp_path / "m.pt")
    (tmp_path / "tokens.txt").write_text("".join(f"{'<blk>' if i == 0 else chr(96 + i)}\n" for i in range(labels)))
    words = ["import", str(tmp_path / "m.pt"), "--as", toolkit, "--tokens", str(tmp_path / "tokens.txt"),
             "--out", str(tmp_path / "m.nnc")]
    assert main(words) == 0
    end = SavedModel.load(tmp_path / "m.nnc").end
    known = toolkit == "icefall-lstm"
    assert end.features.kind == ("kaldi" if known else "log_mel")
    assert ("its own features are not known" in capsys.readouterr().err) == (not known)
    if known:                                               # behind its subsampling there are no features of audio
        assert main([*words, "--outside", "encoder.encoder_embed"]) != 0
        assert "hears what that makes, no audio" in capsys.readouterr().err
    assert main([*words, "--outside", "ctc_output"]) == 0


def test_what_is_asked_of_train_and_new_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    state, _ = checkpoint("plain")
    torch.save(state, "m.pt")
    for arguments, words in ((["import", "m.pt", "--as", "mlpref", "--out", "m.nnc"], "did you mean `mlperf`"),
                             (["import", "m.pt", "--as", "plain", "--set", "stak=2", "--out", "m.nnc"], "no option"),
                             (["import", "m.pt", "--as", "plain", "--set", "stack=x", "--out", "m.nnc"], "NAME=NUMBER"),
                             (["new", "none.nnc"], "none.nnc"), (["new", "m.pt"], "not what `nnac import` wrote")):
        assert main(arguments) != 0
        assert words in capsys.readouterr().err
    assert main(["new", 'rnnt(size="tiny")']) == 0
    assert "layers encoder.lstm[0] {" in capsys.readouterr().out



def test_gates_with_layer_norm_in_common_are_refused_by_name():
    """torchaudio's published predictors have them."""
    weights, _ = checkpoint("torchaudio")
    weights |= {f"predictor.lstm_layers.0.{n}": torch.ones(32) for n in ("g_norm.weight", "g_norm.bias")}
    with pytest.raises(ImportError_, match=r"predictor\.lstm_layers\.0: .*layer norm"):
        captured(maps.named("torchaudio"), weights)
