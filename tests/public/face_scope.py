"""What the rows of face.toml may use: small operands, and helpers for what takes more than an expression."""

import contextlib
import copy
import http.server
import importlib
import io
import json
import pickle
import tempfile
import threading
from pathlib import Path

import numpy as np

import keydnn
import keydnn.domain.protocols
import keydnn.interop.keras


class Numbers:
    """Small operands; made anew for each row, so that none sees what another did."""

    def __init__(self):
        self.P, self.Y = np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([[0.0, 1.0], [1.0, 0.0]])
        self.x = keydnn.tensor(np.arange(6.0).reshape(2, 3))
        self.w = keydnn.tensor(np.ones((2, 3)), requires_grad=True)
        self.p, self.y = keydnn.tensor(self.P), keydnn.tensor(self.Y)
        self.seq, self.image = keydnn.ones((5, 4, 2)), keydnn.ones((2, 3, 4, 5))
        self.ROWS = keydnn.ones((4, 3))
        self.w32, self.affine = keydnn.Parameter((2, 3), "cpu"), keydnn.Linear(3, 2)


def grads(fn, *arrays):
    tensors = [keydnn.tensor(np.asarray(a, dtype=np.float64), requires_grad=True) for a in arrays]
    fn(*tensors).backward()
    return [t.grad.tolist() for t in tensors]


def trained_batch_norm():
    """Running mean and variance after one batch with mean 2 and biased variance 2/3."""
    layer = keydnn.BatchNorm1d(1)
    layer(keydnn.tensor([[1.0], [2.0], [3.0]]))
    return [layer.running_mean.item(), layer.running_var.item()]


def stepped(optimizer, **settings):
    """A parameter of value 2 after one step with gradient 3."""
    p = keydnn.Parameter((1,), "cpu", dtype=np.float64)
    p.fill(2.0)
    p.set_grad(keydnn.tensor(np.array([3.0])))
    optimizer([p], **settings).step()
    return p.tolist()


def fitted(**settings):
    model = keydnn.Sequential(keydnn.Linear(3, 3))
    rows = keydnn.ones((4, 3))
    return model.fit(rows, rows, **({"loss": "mse", "optimizer": "sgd", "verbose": 0} | settings))


def saved(function, *inputs, **options):
    """Shapes of what ``forward`` saves."""
    ctx = keydnn.Context(inputs, None)
    function.forward(ctx, *inputs, **options)
    return [t.shape for t in ctx.saved_tensors]


def meta(function, *inputs, **options):
    ctx = keydnn.Context(inputs, None)
    function.forward(ctx, *inputs, **options)
    return ctx.saved_meta


def intermediates():
    """Gradients of leaf, intermediate and root after ``backward``, and of the leaf after a second one."""
    leaf = keydnn.tensor([2.0], requires_grad=True)
    middle = leaf * 2.0
    root = (middle * 3.0).sum()
    root.backward()
    found = [leaf.grad.tolist(), middle.grad.tolist(), [root.grad.item()]]
    root.backward()
    return [*found, leaf.grad.tolist()]


def deep(n):
    """The gradient through n operations in a row."""
    leaf = keydnn.tensor([1.0], requires_grad=True)
    t = leaf
    for _ in range(n):
        t = t + 1.0
    t.sum().backward()
    return leaf.grad.tolist()


def spread(name, shape):
    """Standard deviation of a weight that starts as ``name`` says."""
    keydnn.seed(0)
    return float(keydnn.Parameter(shape, "cpu", initializer=name).to_numpy().std())


def overridden():
    """Methods put on an instance are called."""
    called = []
    model = keydnn.Sequential(keydnn.Linear(3, 3))
    forward, step = model.forward, model.train_on_batch
    model.forward = lambda x: called.append("forward") or forward(x)
    model(keydnn.ones((1, 3)))
    del model.forward
    model.train_on_batch = lambda *args, **options: called.append("train_on_batch") or step(*args, **options)
    model.fit(keydnn.ones((1, 3)), keydnn.ones((1, 3)), loss="mse", optimizer="sgd", verbose=0)
    return called


def named(*names):
    """ReLUs under names; without any a Linear and a ReLU under a name."""
    model = keydnn.Sequential() if names else keydnn.Sequential(keydnn.Linear(1, 1))
    for name in names or ("act",):
        model.add(keydnn.ReLU(), name=name)
    return model


def named_metric(y_true, y_pred):
    return 0.25


def shown(call):
    """What a call writes to standard output."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        call()
    return text.getvalue()


def stopped(losses, **settings):
    """Epoch at which early stopping ended it, best epoch, best value; it is told one loss after the other."""
    callback = keydnn.EarlyStopping(**settings)
    callback.on_train_begin({})
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        if callback.stop_training:
            break
    return callback.stopped_epoch if callback.stop_training else None, callback.best_epoch, callback.best


def accuracy(y_pred, y_true):
    """The metric ``"acc"``, as a step tells it."""
    model = keydnn.Sequential(keydnn.nn.Identity())
    settings = {"loss": lambda p, t: p.sum(), "optimizer": keydnn.SGD([]), "metrics": "acc", "backward": False, "step": False}
    return model.train_on_batch(keydnn.tensor(y_pred), keydnn.tensor(y_true), **settings)["acc"]


def checkpointed():
    """Files that ModelCheckpoint leaves."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            keydnn.ModelCheckpoint(f"{folder}/best-{{epoch}}-{{val_loss:.2f}}.json"),
            keydnn.ModelCheckpoint(f"{folder}/deep/epoch{{epoch}}.json", save_best_only=False),
            keydnn.ModelCheckpoint(f"{folder}/odd{{"),
        ]
        for callback in rows:
            callback.set_model(named())
            callback.on_train_begin({})
            for epoch, loss in enumerate([float("nan"), 0.5]):
                callback.on_epoch_end(epoch, {"val_loss": loss})
        return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def text_of(model):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "model.json"
        model.save_json(path)
        return path.read_text(encoding="utf-8")


def aligned(last):
    """Whether the result without sequences is the last step, or the state after the whole sequence."""
    layer = keydnn.Bidirectional(keydnn.RNN(2, 3), return_sequences=False, return_state=True, last=last)
    x = keydnn.rand((5, 4, 2))
    y, forward, backward = layer(x)
    whole = backward if last == "final" else layer.backward_layer(x[4:])[1]
    return bool(np.allclose(y.to_numpy(), np.concatenate([forward.to_numpy(), whole.to_numpy()], axis=1), atol=1e-6))


def frozen_loss():
    """The error of changing the record that a loss factory returns."""
    try:
        keydnn.mse_loss().fn_cls = None
    except AttributeError as error:
        return error


def optimized(case):
    """A parameter of value 2 after a step of 0.1 with gradient 1: given twice, or without a gradient."""
    p = keydnn.Parameter((1,), "cpu", dtype=np.float64)
    p.fill(2.0)
    if case == "p p":
        p.set_grad(keydnn.tensor(np.array([1.0])))
    keydnn.SGD([p, p], lr=0.1).step()
    return round(p.item(), 12)


def hand_made(backward_fn):
    w = keydnn.tensor(np.ones((2, 3)), requires_grad=True)
    out = keydnn.Tensor((), requires_grad=True)
    out._set_ctx(keydnn.Context(parents=(w,), backward_fn=backward_fn))
    return out


@contextlib.contextmanager
def scope(folder):
    """Names for the rows: the public ones, the helpers above, and ``FOLDER``; two helpers need to be made for it."""
    servers = []

    def written(payload):
        """The path of a file with a payload."""
        path = Path(tempfile.mkdtemp(dir=folder)) / "model.json"
        path.write_text(json.dumps(payload), encoding="utf-8")
        return path

    def served(content):
        """An address on this machine that answers with ``content``."""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *parts):
                pass

        servers.append(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/file"

    names = {name: getattr(keydnn, name) for name in keydnn.__all__}
    names |= {name: getattr(keydnn.losses, name) for name in keydnn.losses.__all__}
    names |= {name: value for name, value in vars(keydnn.domain.protocols).items() if name[:1] == "I" and name[1:2].isupper()}
    names |= {name: value for name, value in globals().items() if not name.startswith("_")}
    names |= vars(Numbers()) | {"cpu": importlib.import_module("keydnn.kernels.cpu"), "FOLDER": folder}
    try:
        yield names | {"written": written, "served": served, "pickle": pickle, "copy": copy}
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
