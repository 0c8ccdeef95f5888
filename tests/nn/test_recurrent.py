"""Recurrent layers: what they return, padding, directions, layers on layers, files, and PyTorch."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import keydnn
from keydnn import nn
from keydnn.saving import module_from_config, module_to_config

KINDS = {
    "RNN": lambda d, h, **how: nn.RNN(d, h, dtype="f8", **how),
    "LSTM": lambda d, h, **how: nn.LSTM(d, h, dtype="f8", **how),
    "GRU": lambda d, h, **how: nn.GRU(d, h, dtype="f8", **how),
    "GRU-after": lambda d, h, **how: nn.GRU(d, h, dtype="f8", reset_after=True, **how),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def tensor(array, grad=False):
    return keydnn.Tensor(data=np.asarray(array), dtype=np.float64, requires_grad=grad)


def random(*shape, seed=0, grad=False):
    return tensor(np.random.default_rng(seed).normal(size=shape), grad)


def flat(value):
    return [value] if isinstance(value, keydnn.Tensor) else [t for part in value for t in flat(part)]


def arrays(value):
    return [t.numpy() for t in flat(value)]


# -- what a call returns


@kinds
@pytest.mark.parametrize("keras", [False, True])
def test_the_table_of_results(kind, keras):
    x, lstm = random(3, 2, 4), kind == "LSTM"
    for sequences in (True, False):
        for with_state in (True, False):
            np.random.seed(1)
            y = KINDS[kind](4, 5, return_sequences=sequences, return_state=with_state, keras_compat=keras)(x)
            is_pair = with_state and (sequences or keras or lstm)
            assert isinstance(y, tuple) == is_pair
            first = y[0] if is_pair else y
            assert first.shape == ((3, 2, 5) if sequences else (2, 5))
            if is_pair:
                state = y[1]
                assert isinstance(state, tuple) == lstm
                assert_array_equal((state[0] if lstm else state).numpy(), (first[-1] if sequences else first).numpy())


@kinds
def test_a_layer_is_its_cell_step_by_step(kind):
    x, layer = random(5, 3, 4, grad=True), KINDS[kind](4, 2)
    n_states = layer.n_states
    first = [random(3, 2, seed=i + 1, grad=True) for i in range(n_states)]
    h_seq, last = layer(x, *first)
    (h_seq * h_seq).sum().backward()
    grads = [x.grad.numpy(), *(s.grad.numpy() for s in first), *(p.grad.numpy() for p in layer.parameters())]
    for t in (x, *first, *layer.parameters()):
        t.zero_grad()
    states, seen = first, []
    for t in range(5):
        y = layer.cell(x[t], *states)
        states = list(y) if n_states > 1 else [y]
        seen.append(states[0])
    again = keydnn.stack(seen)
    (again * again).sum().backward()
    assert_allclose(again.numpy(), h_seq.numpy(), rtol=1e-12, atol=1e-15)
    for got, want in zip(arrays(last), states, strict=True):
        assert_allclose(got, want.numpy(), rtol=1e-12)
    slow = [x.grad.numpy(), *(s.grad.numpy() for s in first), *(p.grad.numpy() for p in layer.parameters())]
    for got, want in zip(grads, slow, strict=True):
        assert_allclose(got, want, rtol=1e-10, atol=1e-13)


@kinds
def test_only_some_results_used(kind):
    x, layer = random(4, 2, 3, grad=True), KINDS[kind](3, 2)
    h_seq, state = layer(x)
    flat(state)[-1].sum().backward()
    by_state = x.grad.numpy()
    x.zero_grad()
    if kind != "LSTM":
        layer(x)[0][-1].sum().backward()
        assert_allclose(by_state, x.grad.numpy(), rtol=1e-12)
    assert np.abs(by_state).min() > 0


def test_thousands_of_steps():
    """As many steps as would overflow Python's stack, checked by a state that a closed formula knows."""
    layer = nn.RNN(1, 1, bias=False, dtype="f8", return_state=False)
    layer.cell.W_ih.fill(0.001)
    layer.cell.W_hh.fill(0.5)
    x = tensor(np.ones((5000, 1, 1)), grad=True)
    layer(x).sum().backward()
    # far from the ends h = 0.001 / (1 - 0.5) but for tanh's cubic term, and every x is worth 0.001 / (1 - 0.5)
    assert_allclose(layer(x)[2500].item(), 0.002, rtol=1e-5)
    assert_allclose(x.grad.numpy()[1:4900], 0.002, rtol=1e-5)


@kinds
def test_reverse_is_the_layer_on_the_reversed_sequence(kind):
    x, layer = random(4, 2, 3), KINDS[kind](3, 2)
    got, want = arrays(layer(x, reverse=True)), arrays(layer(x.flip(0)))
    assert_allclose(got[0], want[0][::-1], rtol=1e-13)
    for a, b in zip(got[1:], want[1:], strict=True):
        assert_allclose(a, b, rtol=1e-13)


# -- padding


def layers(kind):
    np.random.seed(3)
    yield KINDS[kind](3, 2)
    yield KINDS[kind](3, 2, num_layers=2)
    yield nn.Bidirectional(KINDS[kind](3, 2), return_state=True)
    yield nn.Bidirectional(KINDS[kind](3, 2), return_sequences=False)
    yield nn.Bidirectional(KINDS[kind](3, 2), return_sequences=False, last="aligned")


def loss_of(y):
    return sum((t * t).sum() for t in flat(y))


def loss_and_grads(layer, x, **how):
    layer.zero_grad()
    loss = loss_of(layer(x, **how))
    loss.backward()
    return loss.item(), x.grad.numpy(), [p.grad.numpy() for p in layer.parameters()]


@pytest.mark.slow
@kinds
@settings(max_examples=12)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_padding_changes_nothing(kind, lengths):
    """Loss and gradients of padded sequences are those of each sequence alone, whatever stands in the padding."""
    steps, x = max(lengths), np.full((max(lengths), len(lengths), 3), np.nan)
    for n, length in enumerate(lengths):
        x[:length, n] = np.random.default_rng(n).normal(size=(length, 3))
    for layer in layers(kind):
        padded = tensor(x, grad=True)
        loss, dx, grads = loss_and_grads(layer, padded, lengths=lengths)
        alone = [loss_and_grads(layer, tensor(x[:length, n : n + 1], grad=True)) for n, length in enumerate(lengths)]
        assert_allclose(loss, sum(one[0] for one in alone), rtol=1e-6)
        for n, length in enumerate(lengths):
            assert_allclose(dx[:length, n], alone[n][1][:, 0], rtol=1e-6, atol=1e-12)
            assert_array_equal(dx[length:, n], 0.0)
        for i, g in enumerate(grads):
            assert_allclose(g, sum(one[2][i] for one in alone), rtol=1e-6, atol=1e-12)
    assert steps == padded.shape[0]


@kinds
def test_the_ways_to_tell_padding(kind):
    x, layer = random(4, 3, 2), KINDS[kind](2, 2)
    want = arrays(layer(x, lengths=[4, 2, 0]))
    mask = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]])
    ways = [
        {"lengths": np.array([4, 2, 0])},
        {"lengths": keydnn.Tensor(data=np.array([4, 2, 0]), dtype=np.int64)},
        {"mask": mask},
        {"mask": mask.tolist()},
        {"mask": mask == 1},
        {"mask": keydnn.tensor(mask.astype("f4"))},
    ]
    for way in ways:
        for a, b in zip(arrays(layer(x, **way)), want, strict=True):
            assert_array_equal(a, b)
    assert_array_equal(want[0][2:, 1], 0.0)
    batch_first = type(layer).from_config(layer.get_config() | {"batch_first": True})
    batch_first.load_state_dict(layer.state_dict())
    for way in ({"lengths": [4, 2, 0]}, {"mask": mask.T}):
        got = arrays(batch_first(x.transpose(1, 0, 2), **way))
        assert_array_equal(got[0].transpose(1, 0, 2), want[0])
        assert_array_equal(got[1], want[1])


@kinds
def test_a_mask_with_holes_skips_the_steps(kind):
    x, layer = random(5, 1, 2), KINDS[kind](2, 3)
    got, want = arrays(layer(x, mask=[[1], [0], [1], [0], [1]])), arrays(layer(x[::2]))
    assert_allclose(got[0][::2], want[0], rtol=1e-13)
    assert_allclose(got[-1], want[-1], rtol=1e-13)


# -- layers on layers, both ways


@kinds
def test_two_layers_are_one_on_the_other(kind):
    x, both = random(4, 2, 3), KINDS[kind](3, 2, num_layers=2)
    one, two = KINDS[kind](3, 2), KINDS[kind](2, 2)
    one.cell, two.cell = both.cell, both.cell_1
    first = [random(2, 2, 2, seed=i) for i in range(both.n_states)]
    y, state = both(x, *first)
    h, low = one(x, *(s[0] for s in first))
    h, high = two(h, *(s[1] for s in first))
    assert_allclose(y.numpy(), h.numpy(), rtol=1e-13)
    for s, a, b in zip(flat(state), flat(low), flat(high), strict=True):
        assert_allclose(s.numpy(), np.stack([a.numpy(), b.numpy()]), rtol=1e-13)


def test_dropout_falls_between_the_layers_in_training_alone():
    x, layer = random(6, 4, 3), nn.LSTM(3, 8, num_layers=2, dropout=0.5, return_state=False, dtype="f8")
    np.random.seed(1)
    first, second = layer(x).numpy(), layer(x).numpy()
    assert not np.array_equal(first, second)
    np.random.seed(1)
    assert_array_equal(layer(x).numpy(), first)
    assert_array_equal(layer.eval()(x).numpy(), layer(x).numpy())
    single = nn.LSTM(3, 8, dropout=0.5, return_state=False, dtype="f8")
    assert_array_equal(single(x).numpy(), single(x).numpy())


@pytest.mark.parametrize("mode, merge", [("sum", np.add), ("mul", np.multiply), ("ave", lambda a, b: (a + b) / 2)])
def test_merge_modes(mode, merge):
    x, layer = random(3, 2, 4), nn.Bidirectional(nn.GRU(4, 5, dtype="f8"), merge_mode=mode)
    f, b = layer.forward_layer(x)[0].numpy(), layer.backward_layer(x, reverse=True)[0].numpy()
    assert_allclose(layer(x).numpy(), merge(f, b), rtol=1e-14)


def test_states_of_both_directions():
    x, layer = random(3, 2, 4), nn.Bidirectional(nn.GRU(4, 5, dtype="f8"), return_state=True)
    h, k = random(2, 5, seed=1), random(2, 5, seed=2)
    out, f, b = layer(x, (h, k))
    assert_array_equal(f.numpy(), layer.forward_layer(x, h)[1].numpy())
    assert_array_equal(b.numpy(), layer.backward_layer(x, k, reverse=True)[1].numpy())
    assert_array_equal(layer(x, h)[0].numpy(), layer(x, (h, h))[0].numpy())
    lstm = nn.Bidirectional(nn.LSTM(4, 5, dtype="f8"))
    assert_array_equal(lstm(x, (h, k)).numpy(), lstm(x, ((h, k), (h, k))).numpy())
    assert_array_equal(lstm(x, h).numpy(), lstm(x, ((h, tensor(np.zeros((2, 5)))),) * 2).numpy())
    for bad in (1.0, (h,), (h, 1.0), "h"):
        with pytest.raises(TypeError, match="h0 must be None, a state or a pair of states"):
            layer(x, bad)


def test_last_of_the_backward_layer():
    x, gru = random(3, 2, 4), nn.GRU(4, 5, dtype="f8")
    final = nn.Bidirectional(gru, return_sequences=False)
    old = nn.Bidirectional.from_config({k: v for k, v in final.get_config().items() if k != "last"})
    assert (final.last, old.last) == ("final", "aligned")
    assert "last" not in old.get_config() and final.get_config()["last"] == "final"
    old.load_state_dict(final.state_dict())
    b = final.backward_layer(x, reverse=True)[0].numpy()
    assert_array_equal(final(x).numpy()[:, 5:], b[0])
    assert_array_equal(old(x).numpy()[:, 5:], b[-1])


def test_the_two_names_of_the_directions(tmp_path):
    layer = nn.Bidirectional(nn.LSTM(3, 2))
    assert layer.forward_rnn is layer.forward_layer and layer.backward_rnn is layer.backward_layer
    names = [name for name, _ in layer.named_parameters()]
    assert len(names) == 8 and names[0] == "forward_layer.cell.W_ih"
    model = keydnn.Sequential(layer)
    model.save_json(tmp_path / "m.json")
    payload = json.loads((tmp_path / "m.json").read_text())
    assert set(payload["arch"]["children"]["0"]["children"]) == {"forward_layer", "backward_layer", "forward_rnn", "backward_rnn"}
    assert "shared_with" not in json.dumps(payload["arch"])
    for name in ("forward_rnn", "backward_rnn"):  # not every file has them
        del payload["arch"]["children"]["0"]["children"][name]
        payload["state"] = {k: v for k, v in payload["state"].items() if name not in k}
    (tmp_path / "m.json").write_text(json.dumps(payload))
    twin = keydnn.Sequential.load_json(tmp_path / "m.json")
    again = twin[0]
    assert again.forward_rnn is again.forward_layer and [n for n, _ in again.named_parameters()] == names
    x = keydnn.rand((4, 2, 3))
    assert_array_equal(twin(x).numpy(), model(x).numpy())
    deep = copy.deepcopy(layer)
    assert deep.forward_rnn is deep.forward_layer and deep.forward_layer is not layer.forward_layer


# -- config and files


@pytest.mark.parametrize("kind, extras", [("RNN", {"num_layers": 11}), ("LSTM", {"batch_first": True, "dropout": 0.25, "num_layers": 2}),
                                          ("GRU", {"reset_after": True}), ("GRU", {})])  # fmt: skip
def test_configs_name_what_is_not_as_usual(kind, extras):
    cls = getattr(nn, kind)
    usual = {"input_size": 3, "hidden_size": 2, "bias": False, "return_sequences": False, "return_state": True, "keras_compat": True}
    layer = cls(3, 2, False, False, True, True, **extras)
    assert layer.get_config() == usual | extras
    twin = module_from_config(json.loads(json.dumps(module_to_config(layer))))
    assert twin.get_config() == layer.get_config()
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in layer.named_parameters()]
    assert {type(cell).__name__ for cell in twin.cells} == {f"{kind}Cell"}
    assert nn.GRUCell(3, 2, dtype="f8").get_config() == {"input_size": 3, "hidden_size": 2, "bias": True, "dtype": "float64"}


def test_weights_start_even_within_their_limit():
    np.random.seed(0)
    for cell, k in ((nn.RNNCell(5, 16), 1), (nn.LSTMCell(5, 16), 4), (nn.GRUCell(5, 16), 3)):
        assert [p.shape for p in cell.parameters()] == [(5, 16 * k), (16, 16 * k), (16 * k,), (16 * k,)]
        for p in cell.parameters():
            values = p.numpy()
            assert np.abs(values).max() <= 0.25 and values.std() > 0.09
        assert type(cell)(5, 16, bias=False).b_ih is None
        assert cell != type(cell)(5, 16) and len({cell, cell}) == 1


def test_context_of_the_plain_cell():
    cell = nn.RNNCell(3, 2)
    x, h = keydnn.rand((4, 3)), keydnn.rand((4, 2))
    parents = cell(x, h)._get_ctx().parents
    assert [id(t) for t in parents] == [id(t) for t in (x, h, cell.W_ih, cell.W_hh, cell.b_ih, cell.b_hh)]
    assert len(nn.RNNCell(3, 2, bias=False)(x, h)._get_ctx().parents) == 4


def test_resumed_training_is_the_same(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(24, 6, 3)).astype("f4"), np.random.default_rng(1).integers(0, 4, 24)

    def model():
        keydnn.seed(5)
        layer = nn.LSTM(3, 5, return_state=False, return_sequences=False, batch_first=True, num_layers=2, dropout=0.2)
        m = keydnn.Sequential(layer, nn.Linear(5, 4))
        return m, keydnn.Adam(m.parameters(), lr=0.01)

    whole, opt = model()
    whole.fit(x, y, loss="cross_entropy", optimizer=opt, epochs=4, batch_size=8, verbose=0)
    part, opt = model()
    part.fit(x, y, loss="cross_entropy", optimizer=opt, epochs=2, batch_size=8, verbose=0)
    part.save(tmp_path / "run.safetensors", optimizer=opt)
    other, opt = model()
    other.fit(x, y, loss="cross_entropy", optimizer=opt, epochs=4, batch_size=8, verbose=0, resume=tmp_path / "run.safetensors")
    for a, b in zip(other.parameters(), whole.parameters(), strict=True):
        assert_array_equal(a.numpy(), b.numpy())


# -- what is refused

X = keydnn.zeros((4, 2, 3))
WRONG = {
    "a size": (lambda: nn.LSTM(0, 2), ValueError, "input_size must be at least 1"),
    "dropout": (lambda: nn.GRU(3, 2, dropout=1.0), ValueError, r"dropout must be in \[0, 1\), got 1.0"),
    "rank": (lambda: nn.RNN(3, 2)(X[0]), ValueError, r"RNN: expected x \(T, N, 3\) .*, got shape \(2, 3\)"),
    "features of RNN": (lambda: nn.RNN(4, 2)(X), ValueError, r"RNN: expected x \(T, N, 4\) .*, got shape \(4, 2, 3\)"),
    "features of LSTM": (lambda: nn.LSTM(4, 2)(X), ValueError, r"LSTM: expected x \(T, N, 4\)"),
    "features of GRU": (lambda: nn.GRU(4, 2, batch_first=True)(X), ValueError, r"GRU: expected x \(N, T, 4\)"),
    "no steps": (lambda: nn.GRU(3, 2)(keydnn.zeros((0, 2, 3))), ValueError, "at least one step"),
    "no tensor": (lambda: nn.GRU(3, 2)(np.zeros((4, 2, 3))), TypeError, "GRU: expected a Tensor, got ndarray"),
    "state": (lambda: nn.GRU(3, 2)(X, X), ValueError, r"GRU: expected a state of shape \(2, 2\), got \(4, 2, 3\)"),
    "no state": (lambda: nn.LSTM(3, 2)(X, 0.0), TypeError, r"LSTM: a state must be a Tensor of shape \(2, 2\), got float"),
    "states of layers": (lambda: nn.RNN(3, 2, num_layers=2)(X, X[0]), ValueError, r"expected a state of shape \(2, 2, 2\)"),
    "mask": (lambda: nn.RNN(3, 2)(X, mask=[[1, 0]]), ValueError, r"RNN: mask has shape \(1, 2\), x has 4 steps of 2 rows"),
    "lengths": (lambda: nn.RNN(3, 2)(X, lengths=[4]), ValueError, r"RNN: lengths have shape \(1,\), x has 2 rows"),
    "long": (lambda: nn.RNN(3, 2)(X, lengths=[4, 5]), ValueError, "between 0 and the 4 steps of x, got 4 to 5"),
    "no lengths": (lambda: nn.RNN(3, 2)(X, lengths=[0.5, 2]), TypeError, "lengths must be integers, got dtype float64"),
    "both": (lambda: nn.RNN(3, 2)(X, lengths=[4, 4], mask=[[1]]), ValueError, "give lengths or mask, not both"),
    "cell x": (lambda: nn.LSTMCell(3, 2)(X, X, X), ValueError, r"LSTMCell: expected x_t \(N, 3\), got shape \(4, 2, 3\)"),
    "cell h": (lambda: nn.GRUCell(3, 2)(X[0], X[0]), ValueError, r"GRUCell: expected a state \(N, H\) = \(2, 2\), got shape \(2, 3\)"),
    "plain cell": (lambda: nn.RNNCell(3, 2)(X[0], X[0]), ValueError, r"RNNCell: expected a state \(N, H\) = \(2, 2\), got shape \(2, 3\)"),
    "cell tensor": (lambda: nn.GRUCell(3, 2)(X[0], None), TypeError, "GRUCell: expected Tensors, got NoneType"),
    "template": (lambda: nn.Bidirectional(nn.Linear(2, 2)), TypeError, "layer must be an RNN, LSTM or GRU, got Linear"),
    "template class": (lambda: nn.Bidirectional(nn.GRU), TypeError, "got the class GRU"),
    "merge": (lambda: nn.Bidirectional(nn.GRU(3, 2), merge_mode="max"), ValueError, "merge_mode must be one of concat, sum, mul, ave"),
    "last": (lambda: nn.Bidirectional(nn.GRU(3, 2), last="first"), ValueError, "last must be 'final' or 'aligned', got 'first'"),
    "3-D": (lambda: nn.Bidirectional(nn.GRU(3, 2))(X[0]), ValueError, r"expected x with three axes, got shape \(2, 3\)"),
    "layer_type": (
        lambda: nn.Bidirectional.from_config({"layer_type": "Linear", "layer": {}}),
        TypeError,
        "layer_type 'Linear' is no recurrent layer",
    ),
    "config": (lambda: nn.Bidirectional.from_config({"layer_type": "GRU"}), KeyError, "'layer' is missing"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused(what):
    call, error, text = WRONG[what]
    with pytest.raises(error, match=text):
        call()


# -- PyTorch


def order(kind, w):
    """PyTorch's r, z, n for our z, r, n, and back."""
    return w.reshape(3, -1, *w.shape[1:])[[1, 0, 2]].reshape(w.shape) if kind == "GRU" else w


def copied(kind, cell, other, suffix):
    import torch

    for name in ("ih", "hh"):
        getattr(other, f"weight_{name}_{suffix}").data = torch.tensor(order(kind, getattr(cell, f"W_{name}").numpy().T.copy()))
        getattr(other, f"bias_{name}_{suffix}").data = torch.tensor(order(kind, getattr(cell, f"b_{name}").numpy()))


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_pytorch_gives_the_same(kind, bidirectional):
    import torch

    n_layers = 1 if bidirectional else 2
    layer = getattr(nn, kind)(3, 4, dtype="f8", num_layers=n_layers, batch_first=True, **({"reset_after": True} if kind == "GRU" else {}))
    other = getattr(torch.nn, kind)(3, 4, num_layers=n_layers, batch_first=True, bidirectional=bidirectional, dtype=torch.float64)
    if bidirectional:
        layer = nn.Bidirectional(layer)
        copied(kind, layer.forward_layer.cell, other, "l0")
        copied(kind, layer.backward_layer.cell, other, "l0_reverse")
    else:
        for i, cell in enumerate(layer.cells):
            copied(kind, cell, other, f"l{i}")
    x = random(3, 5, 3, grad=True)
    tx = torch.tensor(x.numpy(), requires_grad=True)
    lengths = [5, 3, 2]
    packed = torch.nn.utils.rnn.pack_padded_sequence(tx, lengths, batch_first=True)
    want, _ = torch.nn.utils.rnn.pad_packed_sequence(other(packed)[0], batch_first=True)
    got = layer(x, lengths=lengths)
    got = got if bidirectional else got[0]
    assert_allclose(got.numpy(), want.detach().numpy(), rtol=1e-12, atol=1e-15)
    (got * got).sum().backward()
    (want * want).sum().backward()
    assert_allclose(x.grad.numpy(), tx.grad.numpy(), rtol=1e-10, atol=1e-14)
    cell = layer.backward_layer.cell if bidirectional else layer.cells[-1]
    suffix = "l0_reverse" if bidirectional else "l1"
    assert_allclose(order(kind, cell.W_hh.grad.numpy().T), getattr(other, f"weight_hh_{suffix}").grad.numpy(), rtol=1e-10, atol=1e-14)
