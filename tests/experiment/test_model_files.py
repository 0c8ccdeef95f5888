"""Models, losses and optimizers in files: equal configs and bits, classes of frameworks by their public names, no code run."""

import json
import zipfile

import numpy as np
import pytest

import keydnn
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.errors import ArtifactError, PackagedCodeError, SymbolResolutionError
from keydnn.experiment.models import BaseModel, KeydnnModelWrapper, wrap_model
from keydnn.experiment.models.keydnn import SequentialCNN, SequentialMLP
from keydnn.experiment.training import Loss, Optimizer


def small():
    return keydnn.Sequential(keydnn.Dense(4), keydnn.nn.BatchNorm1d(4), keydnn.nn.ReLU(), keydnn.Dropout(0.5), keydnn.nn.Linear(4, 2))


ENGINE_MODELS = {
    "mlp": lambda: SequentialMLP(input_shape=(5,), output_shape=(1,), n_layers=2, hidden_dim=4),
    "mlp, not built": lambda: SequentialMLP(n_layers=2, hidden_dim=4),
    "cnn": lambda: SequentialCNN(input_shape=(2, 16), output_shape=(1, 3), n_layers=2, hidden_dim=4, pooling=2),
    "instance": lambda: wrap_model(small()),
    "class": lambda: KeydnnModelWrapper(
        model_class=keydnn.nn.Linear,
        model_kwargs={"bias": False},
        inject_input_shape_as="in_features",
        inject_output_shape_as="out_features",
    ),
}


def back(model, folder):
    path = model.save(folder / "net.old")
    assert path.name == "net.md.mml"
    return BaseModel.load(folder / "net")


@pytest.mark.parametrize("name", ENGINE_MODELS)
def test_models_of_the_engine(name, tmp_path):
    model = ENGINE_MODELS[name]()
    if name == "instance":
        model.build((3,))
    again = back(model, tmp_path)
    assert again == model and again is not model and type(again) is type(model) and again.is_built == model.is_built
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(tmp_path / "net")


def test_a_model_computes_the_same_bits(tmp_path):
    model = wrap_model(small())
    model.build((3,))
    x = keydnn.tensor(np.random.default_rng(0).normal(size=(6, 3)))
    model.train()
    model(x)  # moves the statistics of the batch norm
    again = back(model, tmp_path)
    model.eval(), again.eval()
    assert model(x).numpy().tobytes() == again(x).numpy().tobytes()


@pytest.mark.torch
def test_models_of_torch(tmp_path):
    import torch

    from keydnn.experiment.models import torch as ours

    layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2, bias=False))
    nested = torch.nn.Sequential(layers, torch.nn.ModuleDict({"a": torch.nn.Tanh()})["a"], torch.nn.Dropout(0.25))
    cases = [
        (wrap_model(layers), (3,)),
        (wrap_model(nested), (3,)),
        (wrap_model(torch.nn.Conv1d(2, 3, 3, padding=1)), (2, 7)),
        (wrap_model(torch.nn.Linear(3, 2)), (3,)),
        (ours.SequentialMLP(input_shape=(3,), output_shape=(1,)), (3,)),
    ]
    for i, (model, shape) in enumerate(cases):
        model.build(shape, model.output_shape)
        model.save(tmp_path / f"net{i}")
        assert BaseModel.load(tmp_path / f"net{i}") == model
    assert adapter(Backend.TORCH).describe(torch.nn.ReLU())["kwargs"] == {"inplace": False}
    lstm = torch.nn.LSTM(3, 5, 2, batch_first=True)
    again = adapter(Backend.TORCH).made(adapter(Backend.TORCH).describe(lstm))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in lstm.state_dict().items()} and again.batch_first


@pytest.mark.parametrize(
    "optimizer",
    [Optimizer("adam", opt_kwargs={"lr": 0.1}, backend="keydnn", clip_norm=1.0), Optimizer(keydnn.optimizers.SGD, opt_kwargs={"lr": 0.5})],
    ids=repr,
)
def test_optimizers(optimizer, tmp_path):
    parameter = keydnn.nn.Linear(2, 1).weight
    optimizer.build(parameters=[parameter])
    parameter.grad = keydnn.tensor(np.ones((1, 2)))
    optimizer.step()
    again = Optimizer.load(optimizer.save(tmp_path / "rule"))
    assert again.get_config() == optimizer.get_config() and not again.is_built
    again.build(parameters=[parameter])
    assert again == optimizer


def double_error(outputs, targets):
    return 2 * (outputs - targets).abs()


def test_losses(tmp_path):
    for i, loss in enumerate([Loss("mse", backend="keydnn"), Loss(keydnn.nn.CrossEntropy, reduction="sum")]):
        assert Loss.load(loss.save(tmp_path / f"loss{i}")) == loss
    path = Loss(double_error, backend="keydnn").save(tmp_path / "own")
    with pytest.raises(PackagedCodeError, match="allow_packaged_code=True"):
        Loss.load(path)
    loss = Loss.load(path, allow_packaged_code=True).build()
    assert loss(keydnn.tensor([3.0]), keydnn.tensor([1.0])).tolist() == [4.0]


@pytest.mark.torch
def test_losses_and_optimizers_of_torch(tmp_path):
    import torch

    for i, loss in enumerate([Loss(torch.nn.TripletMarginLoss), Loss(torch.nn.functional.mse_loss), Loss("l1", backend="torch")]):
        assert Loss.load(loss.save(tmp_path / f"loss{i}")) == loss
    rule = Optimizer(torch.optim.Adam, opt_kwargs={"lr": 0.1, "betas": (0.8, 0.9)})
    assert Optimizer.load(rule.save(tmp_path / "rule")) == rule


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        ({"policy": "builtin", "backend": "keydnn", "name": "nn.sys"}, SymbolResolutionError, "may name"),
        ({"policy": "builtin", "backend": "keydnn", "name": "os.system"}, SymbolResolutionError, "may name"),
        ({"policy": "builtin", "backend": "numpy", "name": "load"}, SymbolResolutionError, "may name"),
        ({"policy": "builtin", "backend": "nobody", "name": "load"}, ArtifactError, "nobody"),
        ({"policy": "builtin", "key": "Nothing"}, SymbolResolutionError, "unknown class"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_file_names_nothing_else(spec, error, text, tmp_path):
    path = Loss(keydnn.nn.CrossEntropy).save(tmp_path / "loss")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["loss"] = {"$symbol": spec}
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(error, match=text):
        Loss.load(path)
