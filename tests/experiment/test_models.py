"""Models: wrappers, bases, built-in ones."""

import numpy as np
import pytest

import keydnn
from keydnn.experiment import models
from keydnn.experiment.errors import ActivationError, ShapeSpecError
from keydnn.experiment.models import KeydnnBaseModel, KeydnnModelWrapper, ScikitModelWrapper, ScikitTrainingMode, wrap_model
from keydnn.testing import check_backend

BACKENDS = ["keydnn", pytest.param("torch", marks=pytest.mark.torch)]


def built_in(backend, name):
    module = __import__(f"keydnn.experiment.models.{backend}", fromlist=[name])
    return getattr(module, name)


def batch(backend, shape):
    array = np.random.default_rng(0).standard_normal(shape).astype("f4")
    return keydnn.tensor(array) if backend == "keydnn" else __import__("torch").from_numpy(array)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [*BACKENDS, "scikit"])
def test_every_backend_does_what_graphs_need(backend):
    if backend == "scikit":
        pytest.importorskip("skops")
    check_backend(backend)


@pytest.mark.parametrize("backend", BACKENDS)
class TestBuiltIn:
    def test_mlp_of_the_worked_example(self, backend):
        model = built_in(backend, "SequentialMLP")(input_shape=(10,), output_shape=(1,), n_layers=3, hidden_dim=8)
        assert (model.input_shape, model.output_shape, model.is_built) == ((1, 10), (1, 1), True)
        weights = [value for name, value in model.get_weights().items() if name.endswith("weight")]
        assert sorted(tuple(sorted(w.shape)) for w in weights) == [(1, 8), (8, 8), (8, 10)] and len(model.get_weights()) == 6
        assert tuple(model(batch(backend, (5, 1, 10))).shape) == (5, 1, 1)

    def test_cnn_of_the_worked_example(self, backend):
        model = built_in(backend, "SequentialCNN")(input_shape=(2, 16), output_shape=(1, 3), n_layers=2, hidden_dim=4, pooling=2)
        shapes = [value.shape for name, value in model.get_weights().items() if name.endswith("weight")]
        assert shapes[:2] == [(4, 2, 3), (4, 4, 3)] and sorted(shapes[2]) == [3, 16]
        assert tuple(model(batch(backend, (5, 2, 16))).shape) == (5, 1, 3)

    def test_feature_maps_tell_their_real_shape(self, backend):
        model = built_in(backend, "SequentialCNN")(n_layers=2, hidden_dim=4, stride=2, padding=0, flatten_output=False)
        model.build((2, 17), (1, 1))
        assert model.output_shape == (4, 3) and tuple(model(batch(backend, (2, 2, 17))).shape) == (2, 4, 3)

    def test_shapes_that_are_missing_or_in_conflict(self, backend):
        cls = built_in(backend, "SequentialMLP")
        with pytest.raises(ValueError, match="needs input_shape"):
            cls().build(None, (1, 1))
        with pytest.warns(UserWarning, match=r"\(1, 32\) is taken"):
            model = cls(input_shape=(3,))
            model.build()
        with pytest.raises(ValueError, match="needs force=True"):
            model.build((4,))
        model.build((4,), (2,), force=True)
        assert model.input_shape == (1, 4) and tuple(model(batch(backend, (2, 1, 4))).shape) == (2, 1, 2)

    def test_options_out_of_range(self, backend):
        with pytest.raises(ActivationError, match="known: relu"):
            built_in(backend, "SequentialMLP")(activation="step")
        with pytest.raises(ValueError, match="n_layers"):
            built_in(backend, "SequentialCNN")(n_layers=0)
        with pytest.raises(ValueError, match="dropout"):
            built_in(backend, "SequentialMLP")(dropout=1.0)

    @pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "elu"])
    def test_config_and_state_make_the_same_model(self, backend, activation):
        model = built_in(backend, "SequentialMLP")(input_shape=(3,), output_shape=(2,), activation=activation, dropout=0.1)
        twin = type(model).from_config(model.get_config())
        assert twin.get_config() == model.get_config() and twin != model
        twin.set_state(model.get_state())
        assert twin == model and hash(twin) != hash(model)
        model.reset_weights()
        assert twin != model


@pytest.mark.parametrize("backend", BACKENDS)
class TestWrappers:
    def linear(self, backend):
        if backend == "keydnn":
            return keydnn.Sequential(keydnn.Dense(3), keydnn.nn.Dropout(0.5), keydnn.nn.BatchNorm1d(3))
        torch = __import__("torch")
        return torch.nn.Sequential(torch.nn.LazyLinear(3), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(3))

    def test_building_tries_the_model_and_leaves_it_alone(self, backend):
        inner = self.linear(backend)
        inner.train()
        model = wrap_model(inner)
        assert model.output_shape is None and not model.is_built
        model.build((4,))
        assert (model.input_shape, model.output_shape) == ((4,), (3,)) and inner.training
        means = [value for name, value in model.get_weights().items() if "mean" in name]
        assert len(means) == 1 and not np.any(means[0])  # batch statistics untouched
        with pytest.raises(ValueError, match="needs force=True"):
            model.build((5,))

    def test_an_output_shape_that_the_model_does_not_have(self, backend):
        with pytest.raises(RuntimeError, match=r"\(7,\) was asked for"):
            wrap_model(self.linear(backend)).build((4,), (7,))

    def test_a_model_that_fails(self, backend):
        model = wrap_model(self.linear(backend))
        model.build((4,))
        with pytest.raises(RuntimeError, match="fails on a batch of 4"):
            model.build((2, 2, 2), force=True)
        assert model.input_shape == (4,)

    def test_modules_that_look_up_integers(self, backend):
        nn = keydnn.nn if backend == "keydnn" else __import__("torch").nn
        model = wrap_model(nn.Embedding(5, 2))
        model.build((3,))
        assert model.output_shape == (3, 2)

    def test_a_class_gets_the_shapes_it_asks_for(self, backend):
        base = keydnn.nn.Module if backend == "keydnn" else __import__("torch").nn.Module
        nn = keydnn.nn if backend == "keydnn" else __import__("torch").nn

        class Net(base):
            def __init__(self, n_in, width, output_shape):
                super().__init__()
                self.inner = nn.Linear(n_in[0], width)
                self.outer = nn.Linear(width, output_shape[0])

            def forward(self, x):
                return self.outer(self.inner(x))

        wrapper = type(wrap_model(nn.Linear(1, 1)))
        model = wrapper(model_class=Net, model_kwargs={"width": 3}, inject_input_shape_as="n_in")
        assert model.get_weights() == {} and model.takes_any_output_shape
        model.build((4,), (2,))
        assert model.output_shape == (2,) and len(model.get_weights()) == 4
        with pytest.raises(ValueError, match="no argument 'size'"):
            wrapper(model_class=Net, inject_input_shape_as="size")
        with pytest.raises(RuntimeError, match="cannot be constructed"):
            wrapper(model_class=Net, inject_input_shape_as="n_in").build((4,), (2,))

    def test_what_is_no_model(self, backend):
        wrapper = type(wrap_model(self.linear(backend)))
        with pytest.raises(ValueError, match="neither"):
            wrapper()
        with pytest.raises(TypeError, match="got int"):
            wrapper(model=3)
        with pytest.raises(TypeError, match="must be a class"):
            wrapper(model_class=3)

    def test_fresh_weights(self, backend):
        model = wrap_model(self.linear(backend))
        model.build((4,))
        before = model.get_weights()
        model.reset_weights()
        after = model.get_weights()
        assert before.keys() == after.keys() and any(not np.array_equal(before[name], after[name]) for name in before)


class Forgetful(keydnn.nn.Module):
    def __init__(self, n):
        super().__init__()
        self.inner = keydnn.nn.Linear(n, 1)

    def forward(self, x):
        return self.inner(x)


def test_a_config_tells_what_it_cannot():
    model = wrap_model(Forgetful(3))
    with pytest.warns(UserWarning, match="does not keep its arguments"):
        model.get_config()


def test_wrap_model_refuses_what_it_does_not_know():
    with pytest.raises(NotImplementedError, match="no wrapper for dict"):
        wrap_model({})
    model = wrap_model(keydnn.nn.Linear(2, 1))
    assert wrap_model(model) is model and isinstance(model, KeydnnModelWrapper)


@pytest.mark.parametrize("shape", [(0,), (2, -1), ("a",), 2.5, "ab"])
def test_shapes_are_ints_above_zero(shape):
    with pytest.raises(ShapeSpecError):
        wrap_model(keydnn.nn.Linear(2, 1)).build(shape)


def test_a_base_model_of_your_own():
    class Twice(KeydnnBaseModel):
        def __init__(self, factor=2.0):
            super().__init__(factor=factor)
            self.factor, self.linear = factor, keydnn.nn.Linear(3, 3)

        input_shape = output_shape = property(lambda self: (3,))

        def build(self, input_shape=None, output_shape=None, *, force=False):
            if force:
                self.linear = keydnn.nn.Linear(3, 3)

        def forward(self, x):
            return self.linear(x) * self.factor

    model = Twice(3.0)
    twin = Twice.from_config(model.get_config())
    assert twin.factor == 3.0 and twin.is_built and twin != model
    twin.set_state(model.get_state())
    x = keydnn.tensor(np.ones((2, 3), "f4"))
    assert twin == model and np.array_equal(twin(x).numpy(), model(x).numpy())
    before = model.get_weights()
    model.reset_weights()
    assert not np.array_equal(before["linear.weight"], model.get_weights()["linear.weight"])


def test_bases_of_absent_frameworks_say_so(monkeypatch):
    monkeypatch.setattr(models, "is_installed", lambda name: False)
    monkeypatch.setattr(models, "need", lambda *args: (_ for _ in ()).throw(ImportError("TensorflowBaseModel needs tensorflow")))
    monkeypatch.delitem(vars(models), "TensorflowBaseModel", raising=False)
    stub = models.TensorflowBaseModel
    vars(models).pop("TensorflowBaseModel")
    with pytest.raises(ImportError, match="tensorflow"):
        stub()
    with pytest.raises(AttributeError, match="Nothing"):
        _ = models.Nothing


class TestScikit:
    def test_fit_predict_and_shapes(self):
        linear = pytest.importorskip("sklearn.linear_model")
        model = wrap_model(linear.LinearRegression())
        assert isinstance(model, ScikitModelWrapper) and not model.is_fitted
        assert model.resolved_training_mode is ScikitTrainingMode.BATCH_FIT and not model.supports_partial_fit
        with pytest.raises(RuntimeError, match="not fitted"):
            model(np.ones((2, 3)))
        with pytest.raises(AttributeError, match="partial_fit"):
            model.partial_fit(np.ones((2, 3)), np.ones(2))
        x = np.arange(12.0).reshape(4, 3, 1)
        model.fit(x, x.sum((1, 2))[:, None])
        assert model(x).shape == (4, 1) and np.allclose(model(x)[:, 0], x.sum((1, 2)))
        model.reset_weights()
        assert not model.is_fitted

    def test_output_methods_and_modes(self):
        linear = pytest.importorskip("sklearn.linear_model")
        scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler()
        assert wrap_model(scaler).output_method == "transform" and wrap_model(scaler).supports_partial_fit
        model = ScikitModelWrapper(
            linear.SGDClassifier(loss="log_loss"), output_method="predict_proba", partial_fit_kwargs={"classes": [0, 1]}
        )
        assert model.resolved_training_mode is ScikitTrainingMode.PARTIAL_FIT
        model.partial_fit(np.ones((2, 3)), np.array([[0], [1]]))
        assert model(np.ones((5, 3))).shape == (5, 2)
        with pytest.raises(ValueError, match="output_method"):
            ScikitModelWrapper(scaler, output_method="guess")
        with pytest.raises(ValueError, match="training mode"):
            ScikitModelWrapper(scaler, training_mode="often")
        with pytest.raises(ValueError, match="no partial_fit"):
            ScikitModelWrapper(linear.LinearRegression(), training_mode="partial_fit")
        with pytest.raises(TypeError, match="estimator"):
            ScikitModelWrapper(3)

    def test_what_was_learned_comes_back(self):
        pytest.importorskip("skops")
        linear = pytest.importorskip("sklearn.linear_model")
        model = wrap_model(linear.Ridge())
        model.fit(np.eye(3), np.arange(3.0))
        state = model.get_state()
        model.reset_weights()
        model.set_state(state)
        twin = wrap_model(linear.Ridge().fit(np.eye(3), np.arange(3.0)))
        assert np.array_equal(model(np.eye(3)), twin(np.eye(3)))
