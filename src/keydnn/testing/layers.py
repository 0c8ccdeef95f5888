"""What every layer promises, checked against its definition in float64.

A layer's row is a :class:`LayerCase`; :func:`check_layer` holds it to the promises::

    check_layer(LayerCase("relu", ReLU, lambda dtype: ReLU(), (normal(4, 3),), (4, 3), lambda x: np.maximum(x, 0)))
"""

from __future__ import annotations

import copy
import gc
import json
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from keydnn._tensor import Tensor
from keydnn.autograd import enable_grad, grad, gradcheck, no_grad
from keydnn.nn import Module, Parameter
from keydnn.ops import concat
from keydnn.saving import module_from_config, module_to_config

Draw = Callable[[np.random.Generator], np.ndarray]
TOLERANCES = {np.float32: (2e-5, 2e-6), np.float64: (1e-11, 1e-13)}  # rtol, atol


def normal(*shape: int) -> Draw:
    """Draws normal numbers, none of them near 0, where some layers have a kink."""
    return lambda rng: (lambda z: z + 0.05 * np.sign(z))(rng.normal(size=shape))


def apart(*shape: int) -> Draw:
    """Draws numbers that all differ by at least 0.05, so that the largest of a few stays the largest."""
    return lambda rng: 0.05 * (rng.permutation(int(np.prod(shape))).reshape(shape) - np.prod(shape) / 2 + 0.5)


def probabilities(*shape: int) -> Draw:
    """Draws numbers in [0.05, 0.95]."""
    return lambda rng: rng.uniform(0.05, 0.95, shape)


def labels(n: int, classes: int) -> Draw:
    """Draws n integer labels below ``classes``."""
    return lambda rng: rng.integers(0, classes, n)


@dataclass(frozen=True)
class LayerCase:
    """One row: how to make the layer, what goes in, what must come out.

    Attributes:
        name: Shown in test ids.
        layer: The class.
        make: From a dtype to the layer.
        inputs: One :data:`Draw` per input; integer draws are passed as int64 and not differentiated.
        output: Shape of the result; several results are joined to one vector.
        definition: The result in float64 from the inputs and, as keywords, the layer's parameters and buffers; None where
            there is none (random layers).
        train_differs: Whether evaluation gives another result than training; ``definition`` then is that of training.
        eval_definition: Like ``definition``, for evaluation mode.
        differentiated: How many of the inputs get a gradient; None means all floating ones.
    """

    name: str
    layer: type[Module]
    make: Callable[[Any], Module]
    inputs: tuple[Draw, ...]
    output: tuple[int, ...]
    definition: Callable[..., np.ndarray] | None = None
    train_differs: bool = False
    eval_definition: Callable[..., np.ndarray] | None = None
    differentiated: int | None = None

    def __str__(self) -> str:
        return self.name


def check_layer(case: LayerCase) -> None:
    """Hold a layer to its promises.

    Shape and dtype of the result and its value (float32 and float64) in training and evaluation mode; strided inputs; the
    gradients of inputs and parameters, and their derivatives, against central differences; no graph unless one is wanted, and
    none that only the garbage collector can free; the round trips of config (through JSON, unknown keys ignored) and state;
    a deep copy that shares nothing; a repr.

    Raises:
        AssertionError: A promise is broken.
        RuntimeError: A gradient differs from central differences.
    """
    for dtype in (np.float32, np.float64):
        for training in (True, False):
            _computes_its_definition(case, dtype, training)
    _ignores_strides(case)
    _tells_training_from_evaluation(case)
    _differentiates(case, training=True)
    if case.train_differs:
        _differentiates(case, training=False)
    else:
        _differentiates_alike(case)
    _keeps_gradient_dtypes(case)
    _leaves_no_graph_unasked(case)
    _frees_its_graph(case)
    _survives_json(case)
    _survives_state(case)
    _copies_deeply(case)
    _shows_itself(case)


# -- making layers and inputs, and running them


def _built(case: LayerCase, dtype: Any = np.float64, training: bool = True) -> tuple[Module, list[Tensor]]:
    """The layer, its state moved away from zeros and ones, and inputs."""
    np.random.seed(0)
    rng = np.random.default_rng(1)
    layer = case.make(dtype)
    inputs = [_tensor(draw(rng), dtype) for draw in case.inputs]
    _run(layer, [t.clone() for t in inputs])  # lazy layers get their parameters
    for parameter in layer.parameters():
        parameter.copy_from_numpy(rng.normal(size=parameter.shape))
    for buffer in layer.buffers():
        buffer.copy_from_numpy(rng.uniform(0.5, 1.5, buffer.shape))
    return layer.train(training), inputs


def _tensor(array: np.ndarray, dtype: Any) -> Tensor:
    return Tensor(data=array, dtype=np.int64 if array.dtype.kind in "iu" else dtype)


def _run(layer: Module, inputs: list[Tensor]) -> Tensor:
    """The result, several joined to one vector; what is random starts from the same seed each time."""
    np.random.seed(7)
    y = layer(*inputs)
    return y if isinstance(y, Tensor) else concat([part.reshape((-1,)) for part in _parts(y)])


def _parts(value: Any) -> list[Tensor]:
    """The tensors in a tuple of tensors and tuples."""
    return [value] if isinstance(value, Tensor) else [part for item in value for part in _parts(item)]


def _state(layer: Module) -> dict[str, np.ndarray]:
    return {name.replace(".", "_"): array.astype(np.float64) for name, array in layer.state_dict().items()}


def _wanting(case: LayerCase, inputs: list[Tensor]) -> list[Tensor]:
    """The inputs that get a gradient, told so."""
    wanted = [t for t in inputs[: case.differentiated] if t.dtype.kind == "f"]
    for t in wanted:
        t.requires_grad = True
    return wanted


# -- the promises


def _computes_its_definition(case: LayerCase, dtype: Any, training: bool) -> None:
    layer, inputs = _built(case, dtype, training)
    state = _state(layer)
    before = [t.numpy() for t in inputs]
    y = _run(layer, inputs)
    where = f"{case} ({np.dtype(dtype)}, {'training' if training else 'evaluation'})"
    assert y.shape == case.output, f"{where}: the result has shape {y.shape}, promised is {case.output}"
    assert y.dtype == dtype, f"{where}: the result has dtype {y.dtype}"
    for t, array in zip(inputs, before, strict=True):
        assert_array_equal(t.to_numpy(), array, err_msg=f"{where}: an input was changed")
    definition = case.definition if training or not case.train_differs else case.eval_definition
    if definition is not None:
        want = definition(*(t.numpy().astype(np.float64 if t.dtype.kind == "f" else np.int64) for t in inputs), **state)
        rtol, atol = TOLERANCES[dtype]
        assert_allclose(y.to_numpy(), want, rtol=rtol, atol=atol, err_msg=where)


def _ignores_strides(case: LayerCase) -> None:
    layer, inputs = _built(case, training=False)
    want = _run(layer, inputs).numpy()
    assert_allclose(_run(layer, [_strided(t) for t in inputs]).to_numpy(), want, rtol=1e-12, err_msg=f"{case}: strided inputs")


def _strided(t: Tensor) -> Tensor:
    """The same values in memory with gaps, read backwards."""
    array = t.to_numpy()
    wide = np.zeros([2 * n for n in array.shape], array.dtype)
    view = wide[tuple(slice(None, None, -2) for _ in array.shape)]
    view[...] = array
    twin = Tensor(())
    twin._data = view
    return twin


def _tells_training_from_evaluation(case: LayerCase) -> None:
    layer, inputs = _built(case)
    trained, evaluated = _run(layer, inputs).numpy(), _run(layer.eval(), inputs).numpy()
    if case.train_differs:
        assert not np.array_equal(trained, evaluated), f"{case}: training and evaluation give the same, but are declared to differ"
        assert_array_equal(_run(layer, inputs).numpy(), evaluated, err_msg=f"{case}: a second evaluation differs")
    else:
        assert_array_equal(trained, evaluated, err_msg=f"{case}: training and evaluation differ, which is not declared")


def _differentiates(case: LayerCase, training: bool) -> None:
    layer, inputs = _built(case, training=training)
    tensors = [*_wanting(case, inputs), *layer.parameters()]
    gradcheck(lambda *_: _run(layer, inputs), tensors)
    gradcheck(lambda *_: _slope(layer, inputs, tensors), tensors, rtol=1e-4, atol=1e-6)


@enable_grad()
def _slope(layer: Module, inputs: list[Tensor], tensors: list[Tensor]) -> Tensor:
    """A fixed mix of all gradients; its own gradients are second derivatives."""
    y = _run(layer, inputs)
    grads = grad((y * y).sum(), tensors, create_graph=True, allow_unused=True)
    rng = np.random.default_rng(2)
    weights = [Tensor(data=rng.normal(size=t.shape), dtype=np.float64) for t in tensors]
    terms = [(g * w).sum() for g, w in zip(grads, weights, strict=True) if g is not None]
    return sum(terms[1:], terms[0])


def _differentiates_alike(case: LayerCase) -> None:
    found = []
    for training in (True, False):
        layer, inputs = _built(case, training=training)
        tensors = [*_wanting(case, inputs), *layer.parameters()]
        slope = _slope(layer, inputs, tensors)
        second = grad(slope, tensors, allow_unused=True) if slope.requires_grad else []
        found.append([slope.numpy(), *(g.numpy() for g in second if g is not None)])
    for trained, evaluated in zip(*found, strict=True):
        assert_allclose(evaluated, trained, rtol=1e-12, atol=1e-12, err_msg=f"{case}: gradients of training and evaluation differ")


def _keeps_gradient_dtypes(case: LayerCase) -> None:
    layer, inputs = _built(case, np.float32)
    tensors = [*_wanting(case, inputs), *layer.parameters()]
    _run(layer, inputs).sum().backward()
    wide, wide_inputs = _built(case, np.float64)
    wide_tensors = [*_wanting(case, wide_inputs), *wide.parameters()]
    _run(wide, wide_inputs).sum().backward()
    for t, w in zip(tensors, wide_tensors, strict=True):
        assert t.grad is not None and w.grad is not None, f"{case}: a gradient is missing"
        assert t.grad.dtype == np.float32 and t.grad.shape == t.shape, f"{case}: a gradient has dtype {t.grad.dtype}, shape {t.grad.shape}"
        scale = max(1.0, float(np.abs(w.grad.to_numpy()).max(initial=0.0)))
        assert_allclose(t.grad.to_numpy(), w.grad.to_numpy(), rtol=1e-4, atol=1e-5 * scale, err_msg=f"{case}: float32 gradient")


def _leaves_no_graph_unasked(case: LayerCase) -> None:
    layer, inputs = _built(case)
    tensors = [*_wanting(case, inputs), *layer.parameters()]
    if any(_run(layer, inputs) is t for t in inputs):
        return  # the input object itself was promised
    with no_grad():
        y = _run(layer, inputs)
        assert not y.requires_grad and y._get_ctx() is None, f"{case}: a graph was recorded under no_grad()"
    y = _run(layer, inputs)
    assert y.requires_grad and y._get_ctx() is not None, f"{case}: no graph was recorded"
    for t in tensors:
        t.requires_grad = False
    y = _run(layer, inputs)
    assert not y.requires_grad and y._get_ctx() is None, f"{case}: a graph was recorded although nothing requires a gradient"


def _frees_its_graph(case: LayerCase) -> None:
    layer, inputs = _built(case)
    _wanting(case, inputs)
    y = _run(layer, inputs)
    y.sum().backward()
    refs = [weakref.ref(t) for t in (y, *inputs)]
    was_on = gc.isenabled()
    gc.disable()
    try:
        del y
        inputs.clear()
        assert all(ref() is None for ref in refs), f"{case}: a reference cycle keeps the result or an input alive"
    finally:
        if was_on:
            gc.enable()


def _survives_json(case: LayerCase) -> None:
    layer, inputs = _built(case, training=False)
    config = layer.get_config()
    node = json.loads(json.dumps(module_to_config(layer)))
    assert node["config"] == config, f"{case}: get_config() holds something else than JSON values: {config}"
    twin = module_from_config(node)
    assert type(twin) is type(layer) and twin.get_config() == config, f"{case}: the config came back as {twin.get_config()}, was {config}"
    newer = type(layer).from_config({**config, "added_by_a_later_version": 1})
    assert newer.get_config() == config, f"{case}: an unknown key changed the config"
    twin.eval().load_state_dict(layer.state_dict())
    assert_array_equal(_run(twin, inputs).to_numpy(), _run(layer, inputs).to_numpy(), err_msg=f"{case}: the twin from JSON differs")


def _survives_state(case: LayerCase) -> None:
    layer, inputs = _built(case, training=False)
    want, state = _run(layer, inputs).numpy(), layer.state_dict()
    for _, tensor in (*layer.named_parameters(), *layer.named_buffers()):
        tensor.fill(0.123)
    layer.load_state_dict(state)
    assert_array_equal(_run(layer, inputs).to_numpy(), want, err_msg=f"{case}: the state did not bring the layer back")


def _copies_deeply(case: LayerCase) -> None:
    layer, inputs = _built(case, training=False)
    twin = copy.deepcopy(layer)
    want = _run(layer, inputs).numpy()
    assert [name for name, _ in twin.named_parameters()] == [name for name, _ in layer.named_parameters()]
    for parameter in twin.parameters():
        assert type(parameter) is Parameter and parameter.requires_grad, f"{case}: a copied parameter is a {type(parameter).__name__}"
    assert_array_equal(_run(twin, inputs).to_numpy(), want, err_msg=f"{case}: the copy differs")
    for _, tensor in (*twin.named_parameters(), *twin.named_buffers()):
        tensor.fill(0.123)
    assert_array_equal(_run(layer, inputs).to_numpy(), want, err_msg=f"{case}: the copy shares memory with the layer")


def _shows_itself(case: LayerCase) -> None:
    layer, _ = _built(case)
    text = repr(layer)
    assert text.startswith(f"{type(layer).__name__}("), f"{case}: repr is {text!r}"
    for name, parameter in layer.named_parameters():
        assert f"{name.rpartition('.')[2]} {parameter.shape}" in text, f"{case}: repr does not show {name} {parameter.shape}: {text!r}"
