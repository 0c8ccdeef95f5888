"""Scalers: inverses, replayed undo, unscaling, and no leak from rows that were not fitted."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet
from keydnn.experiment.errors import NotInvertibleError, ScalerTypeError
from keydnn.experiment.scalers import (
    Absolute,
    Negate,
    PerSampleMinMaxScaler,
    PerSampleZeroStart,
    Scaler,
    scaler_registry,
    supported_scalers,
)

sklearn = pytest.importorskip("sklearn", reason="needs the sklearn extra: pip install '.[sklearn]'")

OWN = ["Absolute", "Negate", "PerSampleMinMaxScaler", "PerSampleZeroStart"]
LINEAR = ["StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler"]
KEYS = ["a", "b", "c"]


def frame(n=40, seed=0, inner=()):
    rng = np.random.default_rng(seed)
    data = {key: rng.normal(3 * i, 1 + i, (n, *inner)) for i, key in enumerate([*KEYS, "y"])}
    return FeatureSet.from_dict("fs", data, KEYS, "y")


@given(name=st.sampled_from([*OWN, *LINEAR, "SegmentedScaler"]), seed=st.integers(0, 999), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_an_inverse_undoes_within_rounding(name, seed, scale):
    x = scale * np.random.default_rng(seed).normal(size=(30, 5))
    scaler = Scaler(name, {"boundaries": (0, 2, 5), "scaler": "StandardScaler"} if name == "SegmentedScaler" else None)
    y = scaler.fit_transform(x)
    assert_allclose(scaler.inverse_transform(y), x, rtol=1e-9, atol=1e-9 * scale)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([*OWN, *LINEAR, "Normalizer", "PowerTransformer"]),
            st.sampled_from([("a",), ("b", "a"), ("c", "b"), ("a", "b", "c")]),
        ),
        max_size=5,
    )
)
def test_undo_gives_back_the_very_bits(steps):
    with ExperimentContext(registration_policy="no_register").activate(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PowerTransformer on odd data
        fs = frame()
        history = [snapshot(fs)]
        for name, keys in steps:
            fs.fit_transform(name, domain="features", keys=keys)
            history.append(snapshot(fs))
        assert [record.order for record in fs.scaler_records] == list(range(len(steps)))
        for (_, keys), before in zip(reversed(steps), reversed(history[:-1]), strict=True):
            fs.undo_last_transform("features", sorted(keys))
            assert snapshot(fs) == before


def snapshot(fs):
    return {name: fs.values(name).tobytes() for name in fs.get_feature_keys()}


def test_rows_that_are_not_fitted_change_nothing():
    def fitted(test_value):
        x = np.arange(20.0)
        x[10:] = test_value
        fs = FeatureSet.from_dict("fs", {"x": x}, "x", [])
        fs.add_split(fs.take(range(10), "train"))
        fs.fit_transform("StandardScaler", domain="features", fit_to_split="train")
        return fs.values("features.x.transformed")[:10].tobytes()

    with ExperimentContext(registration_policy="overwrite").activate():
        assert fitted(0.0) == fitted(1e9)


def test_joint_scaling_writes_columns_back_in_the_order_of_the_keys():
    fs = frame()
    fs.fit_transform("PerSampleZeroStart", domain="features", keys=["c", "a"])
    assert (fs.values("features.c.transformed") == 0).all()
    assert_allclose(fs.values("features.a.transformed"), fs.values("features.a.raw") - fs.values("features.c.raw"))
    assert fs.scaler_records[0].keys == ("c", "a") and fs.scaler_records[0].rep_in == {"c": "raw", "a": "raw"}


def test_each_key_continues_from_its_newest_representation():
    fs = frame()
    fs.fit_transform("Negate", domain="features", keys="a")
    fs.fit_transform("Negate", domain="features", keys=["a", "b"])
    assert fs.scaler_records[1].rep_in == {"a": "transformed", "b": "raw"}
    assert (fs.values("features.a.transformed") == fs.values("features.a.raw")).all()
    assert (fs.values("features.b.transformed") == -fs.values("features.b.raw")).all()


@pytest.mark.parametrize(
    ("inner", "keys", "merged"), [((6,), ["a"], None), ((6,), KEYS, (0, 1)), ((6,), KEYS, (1, 2)), ((6,), KEYS, 2), ((3, 2), KEYS, (0, 2))]
)
def test_merged_axes_are_honoured_both_ways(inner, keys, merged):
    fs = frame(inner=inner)
    fs.fit_transform("StandardScaler", domain="features", keys=keys, merged_axes=merged)
    scaled = fs.get_features("np", features=keys, rep="transformed")
    back = fs.unscale_data_for_cols(data=scaled, domain="features", columns=keys)
    assert_allclose(back, fs.get_features("np", features=keys, rep="raw"), rtol=1e-9)
    assert_allclose(fs.unscale_data_for_cols(data=scaled[:5], domain="features", columns=keys), back[:5])
    if len(keys) == 1:
        assert_allclose(fs.unscale_data_for_cols(data=scaled[:, 0], domain="features", columns=keys), back[:, 0])
    fs.undo_all_transforms()
    assert fs.scaler_records == [] and "features.a.transformed" not in fs.get_feature_keys()


def test_higher_ranks_need_merged_axes():
    fs = frame(inner=(4,))
    with pytest.raises(ValueError, match="merged_axes"):
        fs.fit_transform("StandardScaler", domain="features")
    assert fs.scaler_records == [] and fs.get_feature_keys() == [f"features.{key}.raw" for key in KEYS]


def test_an_unknown_split_changes_nothing():
    fs = frame()
    with pytest.raises(KeyError, match="'nowhere'"):
        fs.fit_transform("Negate", domain="features", fit_to_split="nowhere")
    assert fs.scaler_records == []


def test_which_scalers_stand_between_columns_and_raw():
    fs = frame()
    fs.fit_transform("StandardScaler", domain="features", keys=["a", "b"])
    fs.fit_transform("MinMaxScaler", domain="features", keys=["a", "b"])
    assert [s.scaler_name for s in fs.iter_scalers_on_cols(domain="features", columns=["b", "a"])] == ["MinMaxScaler", "StandardScaler"]
    scaled = np.stack([fs.values("features.b.transformed"), fs.values("features.a.transformed")], 1)
    raw = np.stack([fs.values("features.b.raw"), fs.values("features.a.raw")], 1)
    assert_allclose(fs.unscale_data_for_cols(data=scaled, domain="features", columns=["b", "a"]), raw, rtol=1e-9)
    with pytest.raises(ValueError, match=r"joint scaler on \{a, b\}"):
        fs.unscale_data_for_cols(data=scaled[:, 0], domain="features", columns="b")
    with pytest.raises(ValueError, match="overlaps"):
        fs.unscale_data_for_cols(data=raw, domain="features", columns=["b", "c"])
    with pytest.raises(ValueError, match="no scaler was applied"):
        fs.unscale_data_for_cols(data=raw[:, 0], domain="targets", columns="y")


def test_a_separable_scaler_on_some_columns_is_applied_to_them_and_another_stops():
    fs = frame()
    fs.fit_transform("StandardScaler", domain="features", keys="a")
    data = np.stack([fs.values("features.a.transformed"), fs.values("features.b.raw")], 1)
    back = fs.unscale_data_for_cols(data=data, domain="features", columns=["a", "b"])
    assert_allclose(back, np.stack([fs.values("features.a.raw"), fs.values("features.b.raw")], 1), rtol=1e-9)
    fs.fit_transform("PerSampleZeroStart", domain="features", keys="a")
    with pytest.warns(UserWarning, match="partial"):
        assert fs.unscale_data_for_cols(data=data, domain="features", columns=["a", "b"]).tolist() == data.tolist()


def test_scalers_that_remember_rows_find_them_by_id():
    fs = frame(inner=(5,))
    fs.fit_transform("PerSampleMinMaxScaler", domain="features", keys="b")
    view = fs.take([7, 3, 21])
    scaled = view.values("features.b.transformed")
    with pytest.raises(NotInvertibleError, match="remembers the 40 rows"):
        fs.unscale_data_for_cols(data=scaled, domain="features", columns="b")
    back = fs.unscale_rows(data=scaled, sample_uuids=view.get_sample_uuids(), domain="features", columns="b.transformed")
    assert_allclose(back, view.values("features.b.raw"), rtol=1e-9)


@pytest.mark.parametrize("name", [*OWN, *LINEAR, "Normalizer", "QuantileTransformer", "PowerTransformer", "segmented"])
def test_files_keep_what_was_learned(name, tmp_path):
    kwargs = {"n_quantiles": 10} if name == "QuantileTransformer" else {}
    scaler = (
        Scaler("SegmentedScaler", {"boundaries": (0, 2, 5), "scaler": "StandardScaler"}) if name == "segmented" else Scaler(name, kwargs)
    )
    x = np.random.default_rng(0).normal(size=(30, 5)) ** 3
    y = scaler.fit_transform(x)
    scaler.save(tmp_path / "scaler")
    again = Scaler.load(tmp_path / "scaler")
    assert again == scaler and again.is_fit
    assert again.transform(x).tobytes() == y.tobytes()
    if name != "Normalizer":
        assert again.inverse_transform(y).tobytes() == scaler.inverse_transform(y).tobytes()


def test_the_registry_ignores_case_and_takes_more():
    assert supported_scalers is scaler_registry and "standardscaler" in scaler_registry
    with pytest.raises(KeyError, match="registered already"):
        scaler_registry.register("NEGATE", Absolute)
    scaler_registry.register("Twice", Absolute)
    try:
        assert isinstance(Scaler("twice").scaler, Absolute) and "Twice" in Scaler.get_supported_scalers()
    finally:
        del scaler_registry["twice"]


def test_instances_are_copied_and_wrong_objects_refused():
    mine = PerSampleMinMaxScaler((-1, 1))
    scaler = Scaler(mine)
    scaler.fit_transform(np.ones((2, 2)))
    assert not hasattr(mine, "minima_") and scaler.scaler_kwargs == {"feature_range": (-1, 1)}
    for kind in (TypeError, AttributeError):
        with pytest.raises(kind, match="fit and transform"):
            Scaler(3)
    with pytest.raises(ScalerTypeError):
        Scaler(dict)
    with pytest.raises(ValueError, match="unknown scaler"):
        Scaler("NoSuch")
    with pytest.raises(RuntimeError, match="before fit"):
        Scaler("Negate").transform(np.ones((2, 2)))
    with pytest.raises(NotImplementedError):
        Scaler("Normalizer").fit([[1.0]]).inverse_transform([[1.0]])
    for own in (Absolute(), Negate(), mine, PerSampleZeroStart()):
        with pytest.raises(ValueError, match="n_samples, n_features"):
            own.fit(np.ones(3))
