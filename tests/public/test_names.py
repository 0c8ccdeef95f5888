"""Every public name is where it is promised, once, under both spellings."""

import importlib.util
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

import keydnn

PROMISED = {
    "keydnn": """Tensor Device Dense Linear Conv2d Conv2D Conv2dTranspose Conv2DTranspose BatchNorm1d BatchNorm1D BatchNorm2d
        BatchNorm2D LayerNorm Dropout MaxPool2d MaxPool2D AvgPool2d AvgPool2D GlobalAvgPool2d GlobalAvgPool2D ReLU Sigmoid Tanh
        Softmax Sequential History Callback CallbackList EarlyStopping ModelCheckpoint SGD Adam sse_loss mse_loss bce_loss cce_loss
        one_hot numpy_to_tensor cuda_available seed get_seed set_deterministic LeakyReLU Flatten Module Model Parameter Context
        Function WeightInitializer no_grad register_module module_to_config module_from_config tensor grad hvp gradcheck
        load_mnist load_cifar10 load_cifar100 from_keras
        enable_grad is_grad_enabled set_threads get_threads AdamW ReduceLROnPlateau CSVLogger TerminateOnNaN get_deterministic
        RNN LSTM GRU Bidirectional RNNCell LSTMCell GRUCell Embedding MultiHeadAttention TransformerEncoderLayer""",
    "keydnn.tensors": "Tensor Device",
    "keydnn.layers": """Dense LazyLinear Linear Conv2d Conv2D Conv2dTranspose Conv2DTranspose BatchNorm1d BatchNorm1D BatchNorm2d
        BatchNorm2D LayerNorm Dropout MaxPool2d MaxPool2D AvgPool2d AvgPool2D GlobalAvgPool2d GlobalAvgPool2D Flatten
        RNN LSTM GRU Bidirectional""",
    "keydnn.activations": "ReLU LeakyReLU Sigmoid Tanh Softmax",
    "keydnn.losses": """SSE MSE BinaryCrossEntropy CategoricalCrossEntropy BCE CCE SSEFn MSEFn BinaryCrossEntropyFn
        CategoricalCrossEntropyFn BCEFn CCEFn LossFromFn sse_loss mse_loss bce_loss cce_loss""",
    "keydnn.models": "Sequential History",
    "keydnn.optimizers": "SGD Adam",
    "keydnn.callbacks": "Callback CallbackList EarlyStopping ModelCheckpoint",
    "keydnn.datasets": """MNIST CIFAR10 CIFAR100 load_mnist load_cifar10 load_cifar100 download_mnist download_cifar10
        download_cifar100 download_url""",
    "keydnn.backend": "cuda_available",
    "keydnn.utils": "one_hot numpy_to_tensor seed get_seed set_deterministic get_deterministic",
    "keydnn.domain.protocols": "ITensor IParameter IModule IOptimizer IFlatten IPooling2D IGlobalPooling2D DeviceLike NDArrayLike",
    "keydnn.domain.errors": "DeviceNotSupportedError DeviceMismatchError CheckpointError",
}

ALIASES = {
    "Conv2D": "Conv2d",
    "Conv2DTranspose": "Conv2dTranspose",
    "BatchNorm1D": "BatchNorm1d",
    "BatchNorm2D": "BatchNorm2d",
    "MaxPool2D": "MaxPool2d",
    "AvgPool2D": "AvgPool2d",
    "GlobalAvgPool2D": "GlobalAvgPool2d",
    "LazyLinear": "Dense",
}


@pytest.mark.parametrize("module", PROMISED)
def test_names(module):
    found = importlib.import_module(module)
    names = PROMISED[module].split()
    assert [name for name in names if not hasattr(found, name)] == []
    exported = getattr(found, "__all__", None)
    if exported is not None:
        assert [name for name in exported if not hasattr(found, name)] == []
        assert len(exported) == len(set(exported))
        assert set(names) <= set(exported)


@pytest.mark.parametrize("face", [name for name in PROMISED if name.count(".") == 1 and name not in ("keydnn.domain",)])
def test_a_face_shows_the_same_objects_as_the_front_door(face):
    module = importlib.import_module(face)
    for name in PROMISED[face].split():
        if hasattr(keydnn, name):
            assert getattr(module, name) is getattr(keydnn, name), name
    assert getattr(keydnn, face.partition(".")[2]) is module  # an attribute without a further import


@pytest.mark.parametrize("alias, name", ALIASES.items())
def test_both_spellings_are_one_class(alias, name):
    layers = importlib.import_module("keydnn.layers")
    assert getattr(layers, alias) is getattr(layers, name)
    assert getattr(layers, alias).__name__ == name


def test_loss_aliases():
    losses = importlib.import_module("keydnn.losses")
    assert losses.BCE is losses.BinaryCrossEntropy and losses.CCE is losses.CategoricalCrossEntropy
    assert losses.BCEFn is losses.BinaryCrossEntropyFn and losses.CCEFn is losses.CategoricalCrossEntropyFn


def test_there_is_one_tensor_class():
    x = keydnn.rand((2, 3, 4, 4))
    made = [x, keydnn.Conv2d(3, 2, 3)(x), keydnn.BatchNorm2d(3)(x), keydnn.LayerNorm((4,))(x), keydnn.Flatten()(x), x.sum()]
    assert {type(t) for t in made} == {keydnn.Tensor}


@pytest.mark.slow
def test_every_module_can_be_imported_alone_and_imports_nothing_optional():
    left_out = ["keydnn._native", "keydnn.__main__"]
    left_out += [f"keydnn.experiment.models.{name}" for name in ("torch", "tensorflow")]  # each is for users of that framework
    if importlib.util.find_spec("pyarrow") is None:
        left_out.append("keydnn.experiment")  # it says so: see tests/experiment
    names = [m.name for m in pkgutil.walk_packages(keydnn.__path__, "keydnn.") if not m.name.startswith(tuple(left_out))]
    assert "keydnn.infrastructure.pooling._pooling_module" in names
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "loaded = {'torch', 'sklearn', 'matplotlib', 'pandas', 'safetensors', 'scipy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-W", "ignore::RuntimeWarning", "-c", code], check=True)


def test_the_paths_of_older_programs(tmp_path):
    from keydnn.infrastructure._activations_module import ReLU, Softmax
    from keydnn.infrastructure._conv2d_module import Conv2d
    from keydnn.infrastructure._linear import Linear
    from keydnn.infrastructure._models import Sequential
    from keydnn.infrastructure.nn._flatten_module import Flatten
    from keydnn.infrastructure.pooling._pooling_module import MaxPool2d

    model = Sequential(
        Conv2d(in_channels=1, out_channels=8, kernel_size=3, padding=1),
        ReLU(),
        MaxPool2d(kernel_size=2, stride=2),
        Flatten(),
        Linear(8 * 14 * 14, 10),
        Softmax(),
    )
    x = keydnn.rand((2, 1, 28, 28))
    y = model.predict(x)
    assert y.shape == (2, 10)
    np.testing.assert_allclose(y.to_numpy().sum(axis=1), 1.0, rtol=1e-6)
    model.save_json(tmp_path / "checkpoint.json")
    again = Sequential.load_json(tmp_path / "checkpoint.json")
    np.testing.assert_array_equal(again.predict(x).to_numpy(), y.to_numpy())
    assert (Conv2d, Sequential, Softmax) == (keydnn.Conv2d, keydnn.Sequential, keydnn.Softmax)
