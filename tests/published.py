"""Published modules in small, written anew from their sources' descriptions: what `nnac.prepare` and its relatives make
of each as it stands.

``MODULES``: name -> (how, make): ``prepare`` gives (model, example), ``transducer`` the arguments of
`nnac.prepare_transducer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.loops import Of

V, W, H = 9, 8, 8
X, FIRST = torch.randn(12, 3, W), torch.randn(3, 12, W)
LABELS = torch.randint(0, V - 1, (3, 5))


class Wrapped(nn.Module):
    """MLPerf's `rnn()`: an LSTM with dropout behind it, its state optional, and given back."""

    def __init__(self, size: int = W, layers: int = 2) -> None:
        super().__init__()
        self.lstm, self.dropout = nn.LSTM(size, H, layers, dropout=0.1), nn.Dropout(0.1)

    def forward(self, x: Tensor, h: Any = None) -> tuple[Tensor, Any]:
        x, h = self.lstm(x, h)
        return self.dropout(x), h


class StackTime(nn.Module):
    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        r = torch.transpose(x, 0, 1)
        zeros = torch.zeros(r.shape[0], (-r.shape[1]) % 2, r.shape[2], dtype=r.dtype, device=r.device)
        r = torch.cat([r, zeros], 1)
        r = torch.reshape(r, [r.shape[0], r.shape[1] // 2, r.shape[2] * 2])
        return torch.transpose(r, 0, 1), torch.div(x_lens + 3, 2, rounding_mode="trunc") - 1


class MLPerf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"pre_rnn": Wrapped(), "stack_time": StackTime(), "post_rnn": Wrapped(2 * H)})
        self.prediction = nn.ModuleDict({"embed": nn.Embedding(V - 1, H), "dec_rnn": Wrapped(H)})
        self.joint_pred, self.joint_enc = nn.Linear(H, H), nn.Linear(H, H)
        self.joint_net = nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.1), nn.Linear(H, V))

    def encode(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        x, _ = self.encoder["pre_rnn"](x, None)
        x, x_lens = self.encoder["stack_time"](x, x_lens)
        x, _ = self.encoder["post_rnn"](x, None)
        return x.transpose(0, 1), x_lens

    def predict(self, y: Tensor, state: Any = None, add_sos: bool = True) -> tuple[Tensor, Any]:
        y = self.prediction["embed"](y)
        if add_sos:
            y = torch.cat([torch.zeros(len(y), 1, H), y], 1).contiguous()
        g, hid = self.prediction["dec_rnn"](y.transpose(0, 1), state)
        return g.transpose(0, 1), hid

    def joint(self, f: Tensor, g: Tensor) -> Tensor:
        return self.joint_net(self.joint_enc(f).unsqueeze(dim=2) + self.joint_pred(g).unsqueeze(dim=1))


def mlperf() -> dict[str, Any]:
    m = MLPerf()
    return dict(encoder=m.encode, prediction=m.predict, joint=m.joint, blank=-1, start="zeros",
                example=dict(encoder=(X, torch.tensor([12, 10, 8])), prediction=(LABELS, None, False)))


class Rnn(nn.Module):
    """An encoder to go with what a toolkit has of its own behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(W, H, 2, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.rnn(x)[0]


class NeMoDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.prediction = nn.ModuleDict({"embed": nn.Embedding(V, H, padding_idx=V - 1), "dec_rnn": Wrapped(H, 1)})

    def forward(self, targets: Tensor) -> Tensor:
        y = self.prediction["embed"](targets).transpose(0, 1)
        return self.prediction["dec_rnn"](y, None)[0].transpose(0, 1).transpose(1, 2)       # [B, H, U]


class NeMoJoint(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.pred, self.enc = nn.Linear(H, H), nn.Linear(H, H)
        self.joint_net = nn.Sequential(activation, nn.Dropout(0.1), nn.Linear(H, V))

    def forward(self, encoder_outputs: Tensor, decoder_outputs: Tensor) -> Tensor:
        f, g = self.enc(encoder_outputs), self.pred(decoder_outputs.transpose(1, 2))
        return self.joint_net(f.unsqueeze(dim=2) + g.unsqueeze(dim=1))


class Turned(nn.Module):
    """NeMo's joint after the decoder's [B, H, U] was turned, as its `joint` does."""

    def __init__(self, joint: NeMoJoint) -> None:
        super().__init__()
        self.inner = joint

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        return self.inner(f, g.transpose(1, 2))


def nemo(activation: nn.Module) -> dict[str, Any]:
    decoder = NeMoDecoder()
    return dict(encoder=Rnn(), prediction=decoder, joint=Turned(NeMoJoint(activation)), blank=-1, start="zeros",
                example=(FIRST, LABELS))


class SpeechBrainJoint(nn.Module):
    def __init__(self, joint: str) -> None:
        super().__init__()
        self.joint, self.nonlinearity = joint, nn.LeakyReLU()
        self.joint_network = nn.Linear(2 * H if joint == "concat" else H, H)
        self.lin = nn.Linear(H, V, bias=False)

    def forward(self, tn: Tensor, pn: Tensor) -> Tensor:
        if len(tn.shape) != len(pn.shape):
            raise ValueError("both inputs have as many axes")
        if self.joint == "sum":
            joint = tn + pn
        else:
            dims = [max(a, b) for a, b in zip(tn.shape[:-1], pn.shape[:-1], strict=True)]
            joint = self.joint_network(torch.cat([tn.expand(*dims, -1), pn.expand(*dims, -1)], -1))
        return self.lin(self.nonlinearity(joint))


class Labels(nn.Module):
    """Embedding and LSTM, batch first, with the state in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(V, H, padding_idx=0), nn.LSTM(H, H, batch_first=True)
        self.output_linear = nn.Linear(H, H)

    def forward(self, y: Tensor, states: Any = None) -> tuple[Tensor, Any]:
        out, (h, c) = self.rnn(self.embedding(y), states)
        return self.output_linear(out), (h, c)


def speechbrain(joint: str) -> dict[str, Any]:
    f, g = torch.randn(3, 4, 1, H), torch.randn(3, 1, 5, H)
    return dict(encoder=Rnn(), prediction=Labels(), joint=SpeechBrainJoint(joint), blank=0,
                example=dict(encoder=(FIRST,), prediction=(LABELS,), joint=(f, g)))


class EspnetDecoder(nn.Module):
    """A list of LSTMs, each with a state of its own, cut out of one tensor and written into another one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.dropout_embed = nn.Embedding(V, H, padding_idx=0), nn.Dropout(0.1)
        self.decoder = nn.ModuleList([nn.LSTM(H, H, 1, batch_first=True) for _ in range(2)])

    def init_state(self, batch: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(2, batch, H), torch.zeros(2, batch, H)

    def rnn_forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        (h, c), (a, b) = state, self.init_state(x.size(0))
        for i, rnn in enumerate(self.decoder):
            x, (a[i: i + 1], b[i: i + 1]) = rnn(x, hx=(h[i: i + 1], c[i: i + 1]))
        return x, (a, b)

    def forward(self, labels: Tensor) -> Tensor:
        return self.rnn_forward(self.dropout_embed(self.embed(labels)), self.init_state(labels.size(0)))[0]


class EspnetJoint(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin_enc, self.lin_dec, self.lin_out = nn.Linear(H, H), nn.Linear(H, H, bias=False), nn.Linear(H, V)

    def forward(self, enc_out: Tensor, dec_out: Tensor) -> Tensor:
        assert enc_out.dim() == dec_out.dim()
        return self.lin_out(torch.tanh(self.lin_enc(enc_out) + self.lin_dec(dec_out)))


def espnet() -> dict[str, Any]:
    return dict(encoder=Rnn(), prediction=EspnetDecoder(), joint=EspnetJoint(), blank=0, example=(FIRST, LABELS))


class IcefallJoiner(nn.Module):
    def __init__(self, projected: bool) -> None:
        super().__init__()
        self.projected, self.output_linear = projected, nn.Linear(H, V)
        if projected:
            self.encoder_proj, self.decoder_proj = nn.Linear(H, H), nn.Linear(H, H)

    def forward(self, encoder_out: Tensor, decoder_out: Tensor, *unused: Any) -> Tensor:
        assert encoder_out.ndim == decoder_out.ndim == 3
        f, g = encoder_out.unsqueeze(2), decoder_out.unsqueeze(1)
        if self.projected:
            return self.output_linear(torch.tanh(self.encoder_proj(f) + self.decoder_proj(g)))
        return self.output_linear(F.relu(f + g))


class IcefallStateless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.conv = nn.Embedding(V, H), nn.Conv1d(H, H, 2, groups=2, bias=False)

    def forward(self, y: Tensor, need_pad: bool = True) -> Tensor:
        e = self.embedding(y.to(torch.int64)).permute(0, 2, 1)
        e = F.pad(e, pad=(1, 0)) if need_pad else e
        return F.relu(self.conv(e).permute(0, 2, 1))


def icefall(stateless: bool) -> dict[str, Any]:
    return dict(encoder=Rnn(), prediction=IcefallStateless() if stateless else Labels(),
                joint=IcefallJoiner(stateless), blank=0, example=(FIRST, LABELS))


class TorchaudioJoiner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.activation = nn.Linear(H, V), nn.ReLU()

    def forward(self, source: Tensor, source_lengths: Tensor, target: Tensor,
                target_lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        joint = source.unsqueeze(2).contiguous() + target.unsqueeze(1).contiguous()
        return self.linear(self.activation(joint)), source_lengths, target_lengths


def torchaudio_joiner() -> dict[str, Any]:
    n = torch.tensor([4, 4, 3])
    return dict(encoder=Rnn(), prediction=Labels(), joint=TorchaudioJoiner(), blank=-1, example=dict(
        encoder=(FIRST,), prediction=(LABELS,), joint=(torch.randn(3, 4, H), n, torch.randn(3, 5, H), n)))


class NormedGates(nn.Module):
    """torchaudio's predictor: an LSTM written as a loop, layer norm within its gates."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.x2g, self.p2g = nn.Embedding(V, H), nn.Linear(H, 4 * H, bias=False), nn.Linear(H, 4 * H,
                                                                                                        bias=False)
        self.g_norm, self.c_norm = nn.LayerNorm(4 * H), nn.LayerNorm(H)

    def forward(self, y: Tensor) -> Tensor:
        x = self.x2g(self.embedding(y).permute(1, 0, 2))
        h = c = torch.zeros(x.shape[1], H)
        out = []
        for gates in x.unbind(0):
            i, f, g, o = self.g_norm(gates + self.p2g(h)).chunk(4, 1)
            c = self.c_norm(f.sigmoid() * c + i.sigmoid() * g.tanh())
            h = o.sigmoid() * c.tanh()
            out.append(h)
        return torch.stack(out).permute(1, 0, 2)


def torchaudio_predictor() -> dict[str, Any]:
    return dict(encoder=Rnn(), prediction=NormedGates(), joint=IcefallJoiner(False), blank=-1, example=(FIRST, LABELS))


class WordModel(nn.Module):
    """pytorch/examples: the state goes in and out, the words flat."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.encoder = nn.Dropout(0.2), nn.Embedding(V, H)
        self.rnn, self.decoder = nn.LSTM(H, H, 2, dropout=0.2), nn.Linear(H, V)

    def forward(self, input: Tensor, hidden: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, hidden = self.rnn(self.drop(self.encoder(input)), hidden)
        decoded = self.decoder(self.drop(output)).view(-1, V)
        return F.log_softmax(decoded, dim=1), hidden


class Ell(nn.Module):
    """Microsoft ELL's keyword spotter keeps its state on itself."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out, self.hidden1 = nn.GRU(W, H), nn.Linear(H, V), None

    def forward(self, x: Tensor) -> Tensor:
        y, self.hidden1 = self.gru(x, self.hidden1)
        return self.out(y[-1])


def dtln_block(s: Any, x: Tensor) -> Tensor:
    x1, _ = s.rnn1(x)
    x2, _ = s.rnn2(s.drop(x1))
    return torch.sigmoid(s.dense(s.drop(x2))) * x


def dtln_stateful(s: Any, x: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """States [layers, B, H, 2] as the deployed model has them."""
    h1, c1, h2, c2 = states[:1, :, :, 0], states[:1, :, :, 1], states[1:, :, :, 0], states[1:, :, :, 1]
    x1, (h1, c1) = s.rnn1(x, (h1.contiguous(), c1.contiguous()))
    x2, (h2, c2) = s.rnn2(x1, (h2.contiguous(), c2.contiguous()))
    return torch.sigmoid(s.dense(x2)), torch.stack([torch.cat([h1, h2]), torch.cat([c1, c2])], -1)


def dtln_norm(s: Any, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + 1e-7) * s.gamma + s.beta


def rnnoise(s: Any, x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Any:
    y = torch.tanh(s.conv1(F.pad(x.permute(0, 2, 1), (2, 0)))).permute(0, 2, 1)
    g1, a = s.gru1(y, a)
    g2, b = s.gru2(g1, b)
    g3, c = s.gru3(g2, c)
    cat = torch.cat([y, g1, g2, g3], -1)
    return torch.sigmoid(s.dense(cat)), torch.sigmoid(s.vad(cat)), (a, b, c)


def li_gru(s: Any, x: Tensor) -> Tensor:
    h, out = torch.zeros(x.shape[1], H), []
    for w in s.w(x):
        a, z = (w + s.u(h)).chunk(2, -1)
        h = torch.sigmoid(z) * h + (1 - torch.sigmoid(z)) * torch.relu(a)
        out.append(h)
    return torch.stack(out)


def basic_norm(x: Tensor) -> Tensor:
    return x * (torch.mean(x**2, -1, keepdim=True) + 0.25) ** -0.5


def icefall_layer(s: Any, x: Tensor) -> Tensor:
    x = x + s.lstm(x)[0]
    y = s.a(x)
    return basic_norm(x + s.b(y * torch.sigmoid(y - 1)))


def tdnn(s: Any, x: Tensor) -> Tensor:
    y = s.n(torch.relu(s.c(x.permute(1, 2, 0)))).permute(2, 0, 1)
    return s.out(s.rnn(y)[0] + y)


def subsampled(s: Any, x: Tensor) -> Tensor:
    y = torch.relu(s.c(x.unsqueeze(1)))
    b, c, t, f = y.size()
    return s.rnn(s.out(y.transpose(1, 2).contiguous().view(b, t, c * f)))[0]


def packed(s: Any, x: Tensor, output_lengths: Tensor) -> Tensor:
    p = nn.utils.rnn.pack_padded_sequence(s.n(x.reshape(-1, W)).view(x.shape), output_lengths)
    return nn.utils.rnn.pad_packed_sequence(s.rnn(p)[0])[0]


def emformer(s: Any, x: Tensor, lengths: Tensor) -> Tensor:
    """torchaudio's: segments of 4 frames with 2 that follow, copied in front; attention within what a segment hears."""
    x = x.permute(1, 0, 2)
    segment, right = 4, 2
    body, ahead = x[:-right], [x[i + segment: i + segment + right] for i in range(0, len(x) - right, segment)]
    whole = torch.cat([*ahead, body])
    copies = sum(map(len, ahead))
    of = torch.cat([torch.arange(len(ahead)).repeat_interleave(right)[:copies], torch.arange(len(body)) // segment])
    mask = of[:, None] != of[None]
    h = s.norm(whole)
    y = whole + s.attention(h, h, h, attn_mask=mask, need_weights=False)[0]
    y = y + s.second(torch.relu(s.first(s.norm_behind(y))))
    return s.out(y[copies:]).permute(1, 0, 2)


def conformer(s: Any, x: Tensor) -> Tensor:
    """icefall's layer: half a feed-forward, attention over all of the utterance, a convolution that hears both sides,
    another half."""
    y = x + 0.5 * s.b(F.silu(s.a(s.norm1(x))))
    h = s.norm2(y)
    y = y + s.attention(h, h, h, need_weights=False)[0]
    h = F.glu(s.point1(s.norm3(y).permute(1, 2, 0)), dim=1)
    h = s.point2(F.silu(s.batch(s.depth(h)))).permute(2, 0, 1)
    y = y + h
    return s.norm5(y + 0.5 * s.d(F.silu(s.c(s.norm4(y)))))


def dtln(s: Any, x: Tensor) -> Tensor:
    """The whole: a mask of magnitudes, back to samples, a mask of a learned representation, overlapped and added."""
    frames = x.unfold(-1, 16, 4)
    spectrum = torch.fft.rfft(frames)
    magnitude, phase = spectrum.abs(), spectrum.angle()
    mask = torch.sigmoid(s.dense1(s.rnn1(magnitude)[0]))
    again = torch.fft.irfft(torch.polar(magnitude * mask, phase), 16)
    coded = s.encoder(again.permute(0, 2, 1)).permute(0, 2, 1)
    coded = coded * torch.sigmoid(s.dense2(s.rnn2(dtln_norm(s, coded))[0]))
    decoded = s.decoder(coded.permute(0, 2, 1))
    return F.fold(decoded, (1, x.shape[-1]), (1, 16), stride=(1, 4)).flatten(1)


def deep_speech(s: Any, x: Tensor, lengths: Tensor) -> Tensor:
    """The whole: convolutions over time and frequency that hear both sides, masked, then BatchRNN and a softmax."""
    y = x
    for m in s.conv:
        y = m(y)
        ends = torch.arange(y.shape[-1]) >= (lengths // 2)[:, None]
        y = y.masked_fill(ends[:, None, None], 0)
    y = y.view(y.shape[0], y.shape[1] * y.shape[2], y.shape[3]).transpose(1, 2).transpose(0, 1).contiguous()
    y = nn.utils.rnn.pad_packed_sequence(s.rnn(nn.utils.rnn.pack_padded_sequence(y, lengths // 2))[0])[0]
    y = s.fc(s.n(y.reshape(-1, H)).view(y.shape))
    return F.softmax(y.transpose(0, 1), dim=-1)


def lstm(batch_first: bool = False, **more: Any) -> nn.LSTM:
    return nn.LSTM(W, H, batch_first=batch_first, **more)


MODULES: dict[str, tuple[str, Callable[[], Any]]] = {
    "MLPerf RNN-T, whole": ("transducer", mlperf),
    "MLPerf rnn() wrapper": ("prepare", lambda: (Wrapped(), (X,))),
    "NeMo decoder and joint, ReLU": ("transducer", lambda: nemo(nn.ReLU())),
    "NeMo decoder and joint, tanh": ("transducer", lambda: nemo(nn.Tanh())),
    "SpeechBrain joint, sum": ("transducer", lambda: speechbrain("sum")),
    "SpeechBrain joint, concat": ("transducer", lambda: speechbrain("concat")),
    "ESPnet RNNDecoder and JointNetwork": ("transducer", espnet),
    "icefall transducer_lstm decoder and joiner": ("transducer", lambda: icefall(False)),
    "icefall stateless decoder and joiner": ("transducer", lambda: icefall(True)),
    "torchaudio joiner": ("transducer", torchaudio_joiner),
    "torchaudio predictor": ("transducer", torchaudio_predictor),
    "pytorch/examples word LM": ("prepare", lambda: (WordModel(), (LABELS.T.contiguous(), (torch.zeros(2, 3, H),
                                                                                           torch.zeros(2, 3, H))))),
    "LSTM wake word": ("prepare", lambda: (Of(lambda s, x: s.fc(s.rnn(x)[0][:, -1, :]), rnn=lstm(True),
                                              fc=nn.Linear(H, V)), (FIRST,))),
    "GRU keyword spotter": ("prepare", lambda: (Of(lambda s, x: s.fc(s.rnn(x)[1].squeeze(0)),
                                                   rnn=nn.GRU(W, H, batch_first=True), fc=nn.Linear(H, V)),
                                                (FIRST,))),
    "MS ELL": ("prepare", lambda: (Ell(), (X,))),
    "DTLN SeperationBlock": ("prepare", lambda: (Of(dtln_block, rnn1=lstm(True),
                                                    rnn2=nn.LSTM(H, H, batch_first=True),
                                                    drop=nn.Dropout(0.25), dense=nn.Linear(H, W)), (FIRST,))),
    "DTLN stateful block": ("prepare", lambda: (Of(dtln_stateful, rnn1=lstm(True),
                                                   rnn2=nn.LSTM(H, H, batch_first=True), dense=nn.Linear(H, W)),
                                                (FIRST, torch.rand(2, 3, H, 2) - 0.5))),
    "DTLN instant norm": ("prepare", lambda: (Of(dtln_norm, gamma=nn.Parameter(torch.ones(W)),
                                                 beta=nn.Parameter(torch.zeros(W))), (FIRST,))),
    "RNNoise": ("prepare", lambda: (Of(rnnoise, conv1=nn.Conv1d(W, H, 3), gru1=nn.GRU(H, H, batch_first=True),
                                       gru2=nn.GRU(H, H, batch_first=True), gru3=nn.GRU(H, H, batch_first=True),
                                       dense=nn.Linear(4 * H, W), vad=nn.Linear(4 * H, 1)),
                                    (FIRST, *(torch.rand(1, 3, H) - 0.5 for _ in range(3))))),
    "RNNoise, older": ("prepare", lambda: (Of(lambda s, x: torch.sigmoid(s.d(s.c(s.b(s.a(x)[0])[0])[0])),
                                              a=nn.GRU(W, H), b=nn.GRU(H, H), c=nn.GRU(H, H), d=nn.Linear(H, W)),
                                           (X,))),
    "SpeechBrain LSTM": ("prepare", lambda: (Of(lambda s, x: s.rnn(x), rnn=lstm(True, num_layers=2)), (FIRST,))),
    "SpeechBrain bidirectional GRU": ("prepare", lambda: (Of(lambda s, x: s.rnn(x)[0],
                                                             rnn=nn.GRU(W, H, bidirectional=True)), (X,))),
    "SpeechBrain LiGRU": ("prepare", lambda: (Of(li_gru, w=nn.Linear(W, 2 * H), u=nn.Linear(H, 2 * H)), (X,))),
    "ESPnet step": ("prepare", lambda: (Of(lambda s, x, h, c: s.rnn(x, hx=(h, c)), rnn=lstm()),
                                        (X, torch.zeros(1, 3, H), torch.zeros(1, 3, H)))),
    "ESPnet RNNP": ("prepare", lambda: (Of(lambda s, x: torch.tanh(s.bt1(s.birnn1(torch.tanh(s.bt0(s.birnn0(x)[0])))[
        0])), birnn0=lstm(True, bidirectional=True), bt0=nn.Linear(2 * H, H), birnn1=nn.LSTM(H, H, batch_first=True),
        bt1=nn.Linear(H, H)), (FIRST,))),
    "icefall RNNEncoderLayer": ("prepare", lambda: (Of(icefall_layer, lstm=nn.LSTM(W, W), a=nn.Linear(W, H),
                                                       b=nn.Linear(H, W)), (X,))),
    "icefall TdnnLstm": ("prepare", lambda: (Of(tdnn, c=nn.Conv1d(W, H, 3, padding=1), n=nn.BatchNorm1d(H),
                                                rnn=nn.LSTM(H, H), out=nn.Linear(H, V)), (X,))),
    "icefall transducer_lstm encoder": ("prepare", lambda: (Of(subsampled, c=nn.Conv2d(1, 4, 3, 2),
                                                               out=nn.Linear(12, W), rnn=lstm(True)), (FIRST,))),
    "DeepSpeech2 BatchRNN": ("prepare", lambda: (Of(packed, n=nn.BatchNorm1d(W), rnn=lstm()),
                                                 (X, torch.tensor([12, 10, 8])))),
    "torchaudio Emformer": ("prepare", lambda: (Of(emformer, norm=nn.LayerNorm(W), norm_behind=nn.LayerNorm(W),
                                                   attention=nn.MultiheadAttention(W, 2), first=nn.Linear(W, 16),
                                                   second=nn.Linear(16, W), out=nn.Linear(W, H)),
                                                (torch.randn(3, 14, W), torch.tensor([14, 12, 10])))),
    "icefall Conformer layer": ("prepare", lambda: (Of(
        conformer, a=nn.Linear(W, 16), b=nn.Linear(16, W), c=nn.Linear(W, 16), d=nn.Linear(16, W),
        attention=nn.MultiheadAttention(W, 2), point1=nn.Conv1d(W, 2 * W, 1), point2=nn.Conv1d(W, W, 1),
        depth=nn.Conv1d(W, W, 3, padding=1, groups=W), batch=nn.BatchNorm1d(W),
        **{f"norm{i}": nn.LayerNorm(W) for i in range(1, 6)}), (X,))),
    "DTLN, whole": ("prepare", lambda: (Of(
        dtln, rnn1=nn.LSTM(9, H, batch_first=True), dense1=nn.Linear(H, 9), encoder=nn.Conv1d(16, W, 1, bias=False),
        gamma=nn.Parameter(torch.ones(W)), beta=nn.Parameter(torch.zeros(W)), rnn2=lstm(True), dense2=nn.Linear(H, W),
        decoder=nn.Conv1d(W, 16, 1, bias=False)), (torch.randn(3, 64),))),
    "DeepSpeech2, whole": ("prepare", lambda: (Of(
        deep_speech, conv=nn.ModuleList([nn.Conv2d(1, 2, (3, 3), (2, 2), (1, 1)), nn.BatchNorm2d(2),
                                         nn.Hardtanh(0, 20)]), rnn=nn.LSTM(W, H), n=nn.BatchNorm1d(H),
        fc=nn.Linear(H, V, bias=False)), (torch.randn(3, 1, 8, 24), torch.tensor([24, 20, 16])))),
    "attention encoder": ("prepare", lambda: (nn.TransformerEncoderLayer(W, 2, 16, batch_first=True), (FIRST,))),
}
