"""Batches: what is gathered, converted, joined; the same through views, chunks and mapped files."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keydnn
from keydnn.experiment.backends import tensors
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import Batch, BatchView, ExecutionContext, FeatureSet, RoleData, SampleData, SampledView, SampleShapes
from keydnn.experiment.utils import Backend


@given(
    n=st.integers(1, 50),
    k=st.integers(1, 6),
    dtype=st.sampled_from(["float32", "float64", "int32"]),
    chunks=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_a_batch_is_the_stacked_columns(n, k, dtype, chunks, seed):
    rng = np.random.default_rng(seed)
    columns = {f"x{i}": (100 * rng.normal(size=n)).astype(dtype) for i in range(k)}
    with ExperimentContext(registration_policy="no_register").activate():
        fs = FeatureSet.from_dict("fs", {**columns, "y": np.arange(n), "t": [f"t{i}" for i in range(n)]}, list(columns), "y", "t")
        table = fs.collection.table
        cuts = np.sort(rng.integers(0, n + 1, chunks - 1)).tolist()
        parts = [table.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
        fs = FeatureSet.from_pyarrow_table("fs", pa.concat_tables(parts))
    rows = rng.integers(0, n, 7)
    batch = BatchView(fs, {"default": rows}).materialize_batch()
    assert batch.features.dtype == np.dtype(dtype) and batch.features.flags.c_contiguous
    assert np.array_equal(batch.features, np.stack([c.take(rows) for c in columns.values()], 1))
    assert batch.targets.tolist() == rows[:, None].tolist() and batch.tags.tolist() == [[f"t{i}"] for i in rows]
    assert batch.sample_uuids.tolist() == fs.get_sample_uuids()[rows].tolist()
    assert batch.shapes == SampleShapes({"features": (k,), "targets": (1,), "tags": (1,)})


def test_selectors_choose_columns_and_the_others_stay(ten):
    ten.fit_transform("Negate", domain="features")
    view = BatchView(ten, {"anchor": [1, 2], "pair": [3, 4]}, {"anchor": [1.0, 0.5], "pair": [2.0, 2.0]})
    batch = view.materialize_batch(features="*.transformed")
    assert batch.anchor.features.tolist() == [[-10, -1], [-20, -2]] and batch.pair.targets.tolist() == [[6], [8]]
    assert batch.role_weights["anchor"].tolist() == [1.0, 0.5] and batch.available_roles == ["anchor", "pair"]
    assert view.materialize_batch(rep="raw").anchor.features.tolist() == [[10, 1], [20, 2]]
    assert view.materialize_batch(columns=["features.a.raw"]).anchor.targets is None
    with pytest.warns(UserWarning, match="raw and transformed"):
        assert view.materialize_batch().anchor.features.shape == (2, 4)
    assert (
        view.get_role_view("pair").indices.tolist() == [3, 4]
        and repr(view) == "BatchView(source='ten', roles=['anchor', 'pair'], n_samples=2)"
    )


FRAMEWORKS = ["numpy", "keydnn", pytest.param("torch", marks=pytest.mark.torch), "tensorflow"]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework(name, ten):
    pytest.importorskip(name, reason=f"needs {name}")
    view = BatchView(ten, {"default": [0, 3, 9]})
    batch = view.materialize_batch(name)
    want = view.materialize_batch()
    assert np.allclose(tensors.to_numpy(batch.features), want.features) and isinstance(batch.tags, np.ndarray)
    assert tensors.backend_of(batch.targets) is Backend.from_value(name)
    assert tensors.to_numpy(batch.features).dtype == ("float64" if name == "numpy" else "float32")
    again = want.to_format(name)
    assert tensors.backend_of(again.features) is Backend.from_value(name) and again.features.shape == (3, 2)
    both = Batch.concat(batch, again)
    assert both.batch_size == 6 and tensors.backend_of(both.features) is Backend.from_value(name)
    assert both.detach_tensors().features.shape == (6, 2) and both.role_masks["default"].tolist() == [1] * 6
    mixed = SampleData.concat(batch.default, want.default)
    assert isinstance(mixed.features, np.ndarray) and len(mixed.sample_uuids) == 6
    assert np.allclose(tensors.to_numpy(both.as_backend("np").features), np.concatenate([want.features] * 2))


def test_detached_copies_have_no_history():
    x = keydnn.ones((2, 2), requires_grad=True)
    data = SampleData(features=x * 2.0, kind="output")
    assert data.outputs.requires_grad
    data.detach_tensors()
    assert not data.outputs.requires_grad and data.shapes == SampleShapes(features_shape=(2,), kind="output")
    assert data.shapes.outputs_shape == (2,) and len({data.shapes, SampleShapes(features_shape=(2,), kind="output")}) == 1


def test_role_data_is_a_mapping(ten):
    data = BatchView(ten, {"a": [1], "b": [2]}).materialize_batch().role_data
    assert list(data) == ["a", "b"] and data["a"] is data.a is data.get_data("a") and data.get_data("b", "targets").tolist() == [[4]]
    copied = data.copy()
    copied.as_format("keydnn")
    assert isinstance(data.a.features, np.ndarray) and isinstance(copied.a.features, keydnn.Tensor)
    assert data.concat_with(data).a.n_samples == 2
    with pytest.raises(AttributeError, match="immutable"):
        data.c = 1
    with pytest.raises(ValueError, match="roles differ"):
        data.concat_with(RoleData({"a": data.a}))


def test_streams(ten):
    batches = [BatchView(ten, {"default": [i]}) for i in range(3)]
    view = SampledView({"s": batches, "t": batches[::-1]})
    assert (len(view), view.num_batches, view.stream_names, view.s) == (2, 3, ["s", "t"], batches)
    assert [step["t"].role_indices["default"].tolist() for step in view] == [[2], [1], [0]] and view.to_dict()["s"] == batches
    assert view.summary().startswith("┌─ SampledView ─")
    with pytest.raises(ValueError, match="length"):
        SampledView({"s": batches, "t": batches[:1]})


def test_a_step_keeps_what_it_read_and_made(ten):
    view = BatchView(ten, {"default": [1]})
    batch, reference = view.materialize_batch(), ten.reference()
    step = ExecutionContext("train", 0, 1)
    step.set_input(node_id="n", upstream=reference, batch=batch)
    step.set_input_view(node_id="n", upstream=reference, batch_view=view)
    step.set_output(node_id="n", batch=batch)
    assert step.inputs["n", reference] is batch and step.input_views["n", reference] is view and step.outputs == {"n": batch}


def test_a_framework_that_is_missing_is_named(monkeypatch, ten):
    from keydnn.experiment import optional

    monkeypatch.setattr(optional, "_load", lambda name: ImportError(name))
    with pytest.raises(ImportError, match=r"torch; from the checkout: pip install '.\[torch\]'"):
        ten.get_features("torch")


@pytest.mark.parametrize(
    ("text", "member"),
    [("PyTorch", "TORCH"), ("backend.tf", "TENSORFLOW"), ("sklearn", "SCIKIT"), ("kd", "KEYDNN"), ("np", "NUMPY"), ("keras", "TENSORFLOW")],
)
def test_names_of_backends(text, member):
    assert Backend(text) is Backend[member] is Backend.from_value(text)
