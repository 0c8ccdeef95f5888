"""Twins: the same model trained eagerly and by recorded steps, from the same seeds."""

import random

import numpy as np

from keydnn.training import recorded


def arrays(model, optimizer):
    """Every number that training changes, by name."""
    state = {name: p.numpy() for name, p in model.named_parameters()}
    state |= {f"buffer {name}": b.numpy() for name, b in model.named_buffers()}
    state |= {f"grad {name}": p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    return state | {f"optimizer {name}": value for name, value in optimizer.get_state().items()}


def train(make_model, make_optimizer, batches, *, compile, between=None, **options):
    """Train over batches; returns the model, its optimizer, the logs of each step."""
    np.random.seed(7)
    random.seed(7)
    model = make_model()
    optimizer = make_optimizer(list(model.parameters()))
    logs = []
    for i, (x, y) in enumerate(batches):
        if between is not None:
            between(i, model, optimizer)
        logs.append(model.train_on_batch(x, y, optimizer=optimizer, compile=compile, **options))
    return model, optimizer, logs


def assert_same(make_model, make_optimizer, batches, *, rtol=0.0, **options):
    """Recorded steps equal eager steps: bit for bit, or within rtol of the largest element; returns the recorded model."""
    eager = train(make_model, make_optimizer, batches, compile=False, **options)
    plan = train(make_model, make_optimizer, batches, compile=True, **options)
    steps = [step for variants in recorded.of(plan[0]).entries.values() for step in variants]
    assert steps and all(step.reason is None for step in steps), [step.reason for step in steps]
    want, got = arrays(*eager[:2]), arrays(*plan[:2])
    assert want.keys() == got.keys()
    for name, a in want.items():
        tolerance = rtol * np.abs(a).max(initial=0.0)
        assert np.all(np.abs(a - got[name]) <= tolerance), (name, np.abs(a - got[name]).max())
    for a, b in zip(eager[2], plan[2], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert abs(a[name] - b[name]) <= rtol * abs(a[name]), (name, a[name], b[name])
    return plan[0]


def only_step(model):
    """The one recorded step of a model."""
    (variants,) = recorded.of(model).entries.values()
    (step,) = variants
    return step
