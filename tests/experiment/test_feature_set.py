"""Feature sets and views: constructors, reading, choosing, padding, references, audit, looking at them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import BatchView, FeatureSet, FeatureSetView, SampleCollection, SampleSchema, build_sample_schema_table
from keydnn.experiment.errors import FeatureSetError, ResolutionError
from keydnn.experiment.predicates import EQ, GT, LT, In, Lambda, NotIn, Predicate
from keydnn.experiment.references import FeatureSetColumnReference, FeatureSetReference, FeatureSetSplitReference
from keydnn.experiment.visualization import FeatureSetDisplayOptions, Visualizer

DTYPES = ["float64", "float32", "float16", "int64", "int32", "int8", "uint16", "bool", "datetime64[ns]"]


@given(dtype=st.sampled_from(DTYPES), shape=array_shapes(min_dims=1, max_dims=4, max_side=4), seed=st.integers(0, 99))
def test_columns_are_read_back_exactly(dtype, shape, seed):
    values = (np.random.default_rng(seed).normal(size=shape) * 50).astype("int64" if dtype.startswith(("d", "u")) else "float64")
    values = np.abs(values).astype(dtype) if dtype.startswith("u") else values.astype(dtype)
    collection = SampleCollection(build_sample_schema_table(features={"x": values}, targets={}))
    inner = list(shape[1:])
    while inner and inner[-1] == 1:
        inner.pop()
    back = collection.get_features()["x"]
    assert back.dtype == values.dtype and back.tobytes() == values.tobytes() and list(back.shape[1:]) == inner
    picked = collection.array("features.x.raw", np.array([shape[0] - 1, 0]))
    assert picked.tobytes() == values[[shape[0] - 1, 0]].tobytes()


@given(values=st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=1, max_size=8))
def test_text_keeps_its_gaps(values):
    collection = SampleCollection(build_sample_schema_table(features={}, targets={}, tags={"t": values}))
    assert collection.get_tags()["t"].tolist() == values


def test_missing_numbers_are_nan():
    fs = FeatureSet.from_dict("n", {"x": [1, None, 3], "y": [1.5, None, 2]}, "x", "y")
    assert np.isnan(fs.values("features.x.raw")).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="one value per sample"):
        build_sample_schema_table(features={"x": np.array(1.0)}, targets={})
    with pytest.raises(ValueError, match="different numbers"):
        build_sample_schema_table(features={"x": np.ones(2)}, targets={"y": np.ones(3)})


@pytest.mark.slow
def test_targets_of_any_kind_are_exact():
    data = {"x": [0.0, 1.0], "i": np.array([2**62 + 1, -1]), "s": ["a", "b"]}
    fs = FeatureSet.from_dict("t", data, "x", ["i", "s"])
    assert fs.get_targets()["i"].tolist() == [2**62 + 1, -1]
    assert fs.encode_labels("s") == "s_code" and fs.get_targets()["s_code"].tolist() == [0, 1]
    pytest.importorskip("torch", reason="needs the torch extra: pip install torch==2.13.0")
    with pytest.raises(TypeError, match="encode_labels"):
        fs.get_targets("torch", targets="s")


def frame():
    return pd.DataFrame(
        {"g": [2, 1, 2, 1], "t": [3.0, 9.0, 1.0, 4.0], "u": [1, 2, 3, 4], "lot": ["p", "q", "p", "r"], "age": [5, 6, 7, 8]},
        index=[0, 0, 0, 0],
    )


def test_pandas_row_by_row():
    df = frame()
    fs = FeatureSet.from_df("rows", df, ["u", "t"], "age", tag_cols="lot", sort_by="t")
    assert fs.get_features("np").tolist() == [[3, 1], [9, 2], [1, 3], [4, 4]] and fs.get_tags("list") == [["p"], ["q"], ["p"], ["r"]]
    df.loc[:, "u"] = -1
    assert fs.get_features(features="u")["u"].tolist() == [1, 2, 3, 4]


def test_pandas_groups_in_order_of_appearance():
    fs = FeatureSet.from_pandas("g", frame(), "u", "age", group_by="g", tag_cols=["lot", "g"], sort_by="t")
    assert fs.get_features("np").tolist() == [[[3, 1]], [[4, 2]]] and fs.get_targets()["age"].tolist() == [[7, 5], [8, 6]]
    assert fs.get_tags()["g"].tolist() == [2, 1]
    assert fs.get_tags()["lot"].tolist() == [["p"], ["q", "r"]]
    single = FeatureSet.from_pandas("s", frame().iloc[:2], "u", [], group_by=["g", "lot"])
    assert single.get_features()["u"].tolist() == [1, 2] and single.get_targets() == {}


def test_pandas_groups_of_unequal_size():
    df = frame().iloc[:3]
    with pytest.raises(FeatureSetError, match=r"different sizes \(1, 2\)"):
        FeatureSet.from_pandas("u", df, "u", "age", group_by="g")
    fs = FeatureSet.from_pandas("p", df, "u", "age", group_by="g", pad_groups=-1.0)
    assert fs.get_features()["u"].tolist() == [[1, 3], [2, -1]] and fs.get_tags()["group_length"].tolist() == [2, 1]


def test_other_sources(tmp_path):
    table = pa.table({"x": [1.0, None, 3.0], "y": [1, 2, 3], "t": ["a", None, "c"]})
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    pa.csv.write_csv(table, tmp_path / "x.csv")
    sets = [
        FeatureSet.from_parquet("p", tmp_path / "x.parquet", "x", "y", "t"),
        FeatureSet.from_csv("c", tmp_path / "x.csv", "x", "y", "t"),
    ]
    for fs in sets:
        assert fs.get_targets()["y"].tolist() == [1, 2, 3] and np.isnan(fs.get_features()["x"]).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="no column 'q'"):
        FeatureSet.from_csv("q", tmp_path / "x.csv", "q", [])
    assert FeatureSet.from_numpy("n", np.ones((3, 2)), np.arange(3)).get_all_keys()[:2] == ["features.x0.raw", "targets.y0.raw"]


def test_polars_frames():
    polars = pytest.importorskip("polars", reason="needs polars: pip install polars")
    frame = polars.DataFrame({"x": [1.0, None, 3.0], "y": [1, 2, 3], "t": ["a", None, "c"]})
    for label, source in (("eager", frame), ("lazy", frame.lazy())):
        fs = FeatureSet.from_polars(label, source, "x", "y", "t")
        assert fs.get_targets()["y"].tolist() == [1, 2, 3] and np.isnan(fs.get_features()["x"]).tolist() == [False, True, False]
        assert fs.get_tags("list") == [["a"], [None], ["c"]] and fs.get_tag_dtypes() == {"tags.t.raw": "string"}
    with pytest.raises(TypeError, match="polars DataFrame or LazyFrame"):
        FeatureSet.from_polars("no", {"x": [1]}, "x", [])


def test_torch_data_sets():
    torch = pytest.importorskip("torch", reason="needs the torch extra: pip install torch==2.13.0")
    data = torch.utils.data.TensorDataset(torch.ones(4, 3), torch.arange(4))
    assert FeatureSet.from_torch_dataset("a", data).get_targets()["y0"].tolist() == [0, 1, 2, 3]
    assert FeatureSet.from_torch_dataset("b", torch.utils.data.Subset(data, [3, 1])).get_targets()["y0"].tolist() == [3, 1]


def test_formats(ten):
    assert ten.get_features("df").columns.tolist() == ["a", "b"] and ten.get_features("dict_list")["b"][3] == 3.0
    assert ten.get_features("list")[1] == [10.0, 1.0]
    assert ten.get_data(features="a", targets="y", fmt="np").shape == (10, 2) and ten.get_data() == {}
    assert list(ten.get_data(features="a", tags="t", include_domain_prefix=False)) == ["features.a.raw", "tags.t.raw"]
    assert ten.get_features("kd").shape == (10, 2) and str(ten.get_features("kd").dtype) == "float32"
    with pytest.raises(ValueError, match="unknown data format"):
        ten.get_features("table")
    wide = FeatureSet.from_numpy("w", {"p": np.ones((4, 10)), "q": np.ones((4, 10)), "r": np.ones((4, 3))})
    assert wide.get_features("np", features="p").shape == (4, 1, 10) and wide.get_features("np", features=["p", "q"]).shape == (4, 2, 10)
    with pytest.raises(ValueError, match=r"r \(3,\)"):
        wide.get_features("np")
    torch = pytest.importorskip("torch", reason="needs the torch extra: pip install torch==2.13.0")
    assert ten.get_features("torch").dtype == torch.float32


def test_selectors(ten):
    ten.fit_transform("Negate", domain="features", keys="a")
    keys = ["features.a.raw", "features.a.transformed"]
    assert list(ten.get_data(features="a")) == keys == list(ten.get_data(features="features.a.*"))
    assert list(ten.get_data(features="*", rep="raw")) == ["features.a.raw", "features.b.raw"]
    assert list(ten.get_features(rep="transformed")) == ["a"] and list(ten.get_features(features="?.raw")) == ["a", "b"]
    wanted = ["a.raw"]
    ten.get_data(features=wanted, columns="targets.y.raw")
    assert wanted == ["a.raw"]
    for selector, error in (("z", KeyError), ("targets.y", ValueError), ("a.scaled", KeyError)):
        with pytest.raises(error):
            ten.get_data(features=selector)
    with pytest.warns(UserWarning, match="both"):
        ten.get_features("np", features="a")


def test_rows(ten):
    assert ten.take([3, 1]).label == "ten_view" and ten.take([3, 1]).take([1]).indices.tolist() == [1]
    for bad in ([-1], [10]):
        with pytest.raises(IndexError):
            ten.take(bad)
    with pytest.raises(ValueError, match="1-D"):
        ten.take([[1]])
    odd = ten.filter(conditions={"t": "y", "b": GT(2)})
    assert odd.indices.tolist() == [3, 5, 7, 9] and len(odd.filter(conditions={"features.b.raw": [5, 9.0]})) == 2
    some = ten.take([9, 0, 3])
    assert odd.take_intersection(some).indices.tolist() == [3, 9] and odd.take_intersection(some, order="other").indices.tolist() == [9, 3]
    assert odd.take_difference(some).indices.tolist() == [5, 7]
    ids = ten.get_sample_uuids()
    assert ten.take_sample_uuids([ids[7], ids[2]]).indices.tolist() == [2, 7]
    with pytest.raises(ValueError, match="not in"):
        odd.take_sample_uuids([ids[0]])
    with pytest.raises(ValueError, match="different feature sets"):
        odd.take_difference(ten.copy())
    assert odd.get_overlap_with(ten.copy()) == ids[odd.indices].tolist() and odd.is_disjoint_with(ten.take([0, 1]))
    with pytest.warns(UserWarning, match="meets the conditions"):
        assert len(ten.filter(conditions={"b": LT(-1)})) == 0
    narrow = odd.select(features="a")
    assert narrow.get_all_keys() == ["features.a.raw", "sample_uuids"] == narrow.filter(conditions={"t": "y"}).columns
    assert narrow.expand_columns().label == "ten_view_view_expanded"
    with pytest.raises(AttributeError, match="frozen"):
        odd.indices = [1]


def test_views_compare_and_come_back(ten):
    view = ten.take([1, 2])
    assert view == ten.take([1, 2]) and view != ten.take([2, 1]) and FeatureSetView.from_config(view.get_config()) == view
    assert (
        repr(view) == "FeatureSetView(source='ten', n_samples=2, label='ten_view')" and repr(ten) == "FeatureSet(label='ten', n_samples=10)"
    )
    for thing in (ten, view, ten.collection):
        with pytest.raises(TypeError):
            assert thing == 3
        with pytest.raises(TypeError):
            hash(thing)


def test_padding_is_filled_and_masked(ten):
    view = FeatureSetView(ten, [3, -1], ten.get_all_keys(), "padded")
    assert view.get_features("np").tolist() == [[30, 3], [0, 0]] and view.get_tags()["t"].tolist() == ["y", ""]
    assert view.get_sample_uuids()[1] == "N/A" and view.sample_mask.tolist() == [1, 0]
    assert len(view.to_pandas()) == 1 and view.to_pandas(include_padded=True, include_mask=True)["__mask__"].tolist() == [1, 0]
    batch = BatchView(ten, {"default": [3, -1]}).materialize_batch()
    assert batch.features.tolist() == [[30, 3], [0, 0]] and batch.role_weights["default"].tolist() == [1, 0]
    assert batch.role_masks["default"].tolist() == [1, 0] and batch.sample_uuids[1] == "N/A"


def test_ids_belong_to_rows(ten):
    ids = ten.get_sample_uuids()
    assert len(set(ids)) == 10 and all(i[14] == "4" and i[19] in "89ab" and len(i) == 36 for i in ids)
    assert (
        ten.take([4, 2]).get_sample_uuids().tolist()
        == ids[[4, 2]].tolist()
        == ten.take([4, 2]).to_featureset("part").get_sample_uuids().tolist()
    )
    fixed = [FeatureSet("a", ten.collection, uuid_key=7, register=False).get_sample_uuids().tolist() for _ in range(2)]
    assert fixed[0] == fixed[1] != ids.tolist()
    table = ten.collection.table
    assert SampleCollection(table).get_sample_uuids().tolist() == ids.tolist()
    doubled = table.set_column(table.schema.get_field_index("sample_uuids"), "sample_uuids", pa.array(["x"] * 10))
    with pytest.warns(UserWarning, match="not unique"):
        assert len(set(SampleCollection(doubled).get_sample_uuids())) == 10


@given(values=arrays("float64", (6, 2)))
def test_the_fingerprint_is_of_values_alone(values):
    with ExperimentContext(registration_policy="no_register").activate():
        fs = FeatureSet.from_dict("a", {"x": values, "t": list("abcdef")}, "x", [], "t")
        table = fs.collection.columns_table
        chunks = FeatureSet.from_pyarrow_table("b", pa.concat_tables([table.slice(0, 2), table.slice(2)]))
        assert fs.fingerprint == chunks.fingerprint
        other = FeatureSet.from_dict("a", {"x": values, "t": list("abcdeg")}, "x", [], "t")
        assert fs.fingerprint != other.fingerprint


def test_copies(ten):
    ten.split_random({"train": 0.5, "test": 0.5})
    ten["train"].split_random({"p": 0.4, "q": 0.6})
    ten.fit_transform("Negate", domain="features", fit_to_split="train")
    plain = ten.copy()
    assert plain.label == "ten_copy" and plain.available_splits == [] and plain.get_feature_keys() == ["features.a.raw", "features.b.raw"]
    with pytest.raises(ValueError, match="register=True"):
        ten.copy(restore_splits=True)
    with pytest.raises(ValueError, match="restore_splits=True as well"):
        ten.copy(restore_scalers=True, register=True)
    full = ten.copy(label="full", restore_splits=True, restore_scalers=True, register=True, share_raw_data_buffer=False)
    assert full.split_registry.ancestors("p") == ["p", "train"] and (full["p"].indices == ten["p"].indices).all()
    assert full.scaler_records == ten.scaler_records and full.collection == ten.collection
    full.undo_last_transform("features")
    assert len(ten.scaler_records) == 1


def test_snapshots_bring_everything_back(ten, context):
    with context.temporary():
        ten.split_random({"a": 1.0})
        ten.fit_transform("Negate", domain="features")
        ten.encode_labels("t")
        ten.label = "eleven"
    assert (ten.label, ten.available_splits, ten.scaler_records, ten.label_classes) == ("ten", [], [], {})
    assert ten.get_all_keys() == ["features.a.raw", "features.b.raw", "targets.y.raw", "tags.t.raw", "sample_uuids"]


def test_column_texts(ten, context):
    for text in ("b", "b.raw", "features.b.raw", "ten.features.b.raw", "ten.b"):
        reference = FeatureSetColumnReference.from_string(text, experiment=context)
        assert (reference.column, reference.resolve().columns) == ("features.b.raw", ["features.b.raw", "sample_uuids"])
    for text in ("z", "targets.b", "raw", "other.b"):
        with pytest.raises(ResolutionError):
            FeatureSetColumnReference.from_string(text, experiment=context)
    with pytest.raises(ValueError, match="known_attrs"):
        FeatureSetColumnReference.from_string("b", experiment=context, known_attrs={"what": "x"})
    FeatureSet.from_dict("b", {"c": [1.0]}, "c", [])
    assert FeatureSetColumnReference.from_string("ten.b", experiment=context).column == "features.b.raw"
    with pytest.raises(ResolutionError, match="names no feature set"):
        FeatureSetColumnReference.from_string("y", experiment=context)
    ten.fit_transform("Negate", domain="features", keys="b")
    with pytest.warns(UserWarning, match="raw is taken"):
        assert ten.column_reference("b").rep == "raw"


def test_references(ten):
    ten.split_random({"train": 0.5, "test": 0.5})
    reference = ten.reference(features=["b", "a"], targets="y.raw")
    assert reference.features == ("features.a.raw", "features.b.raw") and reference.tags == ("tags.t.raw",)
    assert FeatureSetReference.from_config(reference.get_config()) == reference and hash(reference) == hash(ten.reference())
    assert FeatureSetSplitReference("train", "ten").resolve() == ten["train"] and len(FeatureSetSplitReference(None, "ten").resolve()) == 10
    gone = FeatureSetReference("ten", "no-such-id", features="features.a.raw")
    assert gone.resolve().columns == ["features.a.raw", "sample_uuids"] and gone.to_string() == "ten.features.a.raw"
    for bad in (
        FeatureSetReference("ten", features=()),
        FeatureSetReference("x"),
        FeatureSetSplitReference("no", "ten"),
        FeatureSetReference(),
    ):
        with pytest.raises(ResolutionError):
            bad.resolve()
    ten.fit_transform("Negate", domain="features", keys="b")
    with pytest.warns(UserWarning, match="features.b"):
        assert len(ten.reference().features) == 3


def test_predicates():
    values = np.arange(5)
    for predicate in (GT(2), In([1, 2]), NotIn([0]), EQ(3) | ~LT(2), Lambda("lambda x: 1 <= x < 4 and x != 2")):
        assert Predicate.from_dict(predicate.to_dict()) == predicate
        assert [bool(predicate(v)) for v in values.tolist()] == predicate(values).tolist()
    with pytest.raises(ValueError, match="unknown predicate"):
        Predicate.from_dict({"type": "sql"})


def test_an_audit_finds_what_was_planted():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 3))
    x[25] = x[2]
    gaps = rng.normal(size=30)
    gaps[4] = np.nan
    fs = FeatureSet.from_dict("planted", {"x": x, "g": gaps, "c": np.ones(30), "y": np.arange(30)}, ["x"], ["g", "c", "y"])
    fs.add_split(fs.take(range(20), "train"))
    fs.add_split(fs.take(range(20, 30), "test"))
    fs.fit_transform("Negate", domain="targets", keys="y")
    found = {(f.kind, f.splits, f.rows[:3]) for f in fs.audit().findings}
    assert found == {
        ("duplicate_rows", ("train", "test"), (2, 25)), ("scaler_leak", ("train", "test"), (0, 1, 2)),
        ("nan_column", (), (4,)), ("constant_column", (), ()),
    }  # fmt: skip
    fs.undo_all_transforms()
    with pytest.warns(UserWarning, match="overlap"):
        fs.add_split(fs.take([18, 19, 20], "late"))
    fs.fit_transform("Negate", domain="targets", keys="y", fit_to_split="late")
    report = fs.audit()
    assert {(f.splits, f.rows) for f in report.findings if f.kind == "split_overlap"} == {
        (("train", "late"), (18, 19)),
        (("test", "late"), (20,)),
    }
    assert [f.splits for f in report.findings if f.kind == "scaler_leak"] == [("late", "train", "test")]
    assert not report.ok and len(report.to_pandas()) == len(report.findings)


def test_an_audit_of_clean_data_finds_nothing(ten):
    ten.split_random({"train": 0.5, "test": 0.5})
    ten["train"].split_random({"fit": 0.5, "val": 0.5})
    ten.fit_transform("Negate", domain="features", fit_to_split="train")
    assert ten.audit().ok and ten.audit(splits=["test"]).ok


def test_diagrams(ten, capsys, tmp_path):
    ten.split_random({"train": 0.7, "test": 0.3})
    ten["train"].split_random({"fit": 0.5, "val": 0.5})
    text = Visualizer(ten).get_mermaid_str()
    assert text.splitlines()[:2] == [
        "flowchart LR",
        "n0@{ label: \"<b>FeatureSet</b><br>'ten'<br>n=10<br>features.a.raw ()<br>features.b.raw ()<br>"
        'targets.y.raw ()<br>tags.t.raw ()", shape: rect }',
    ]
    assert 'n1 e2@-->|"n=3"| n3' in text or 'n1 e2@-->|"n=4"| n3' in text
    assert "classDef Split fill:#F3E5F5,stroke:#AA00FF" in text and "overlap<br>fit: " in text
    assert ten.visualize() is None and capsys.readouterr().out.startswith("flowchart LR")
    assert Visualizer(ten, FeatureSetDisplayOptions(show_overlaps=False)).get_mermaid_str().count("overlap") == 0
    assert Path(Visualizer(ten).mermaid_to_mmd(tmp_path / "d")).read_text() == text
    with pytest.raises(NotImplementedError):
        Visualizer(3)
    ten.label = "<b>"
    assert "'&lt;b&gt;'" in Visualizer(ten).get_mermaid_str()
    assert ten.summary().splitlines()[0].startswith("┌─ FeatureSet ─") and max(map(len, ten.summary(40).splitlines())) <= 40


def test_schema_errors():
    t = pa.float64()
    assert SampleSchema({"a": {"raw": t}}) == SampleSchema.from_table(pa.table({"features.a.raw": [1.0]}))
    for bad in (
        {"features": {"raw": {"raw": t}}},
        {"features": {"a b": {"raw": t}}},
        {"features": {"a": {"raw": t}}, "tags": {"a": {"raw": t}}},
    ):
        with pytest.raises(ValueError):
            SampleSchema(**bad)
    for name in ("features.a", "inputs.a.raw", "features.keydnn.raw"):
        with pytest.raises(ValueError):
            SampleSchema.from_table(pa.table({name: [1.0]}))


def test_representations_of_a_collection(ten):
    collection = ten.collection
    collection.add_rep("features", "a", "scaled", np.ones(10))
    assert collection.get_reps("features", "a") == ["raw", "scaled"] and sorted(collection.get_features(rep=None)) == [
        "a.raw",
        "a.scaled",
        "b.raw",
    ]
    for args, error in (
        (("features", "a", "raw", np.ones(10)), ValueError), (("features", "z", "s", np.ones(10)), ValueError),
        (("features", "a", "s", [1] * 10), TypeError), (("features", "a", "s", np.ones(9)), ValueError),
        (("features", "a", "scaled", np.ones(10)), ValueError),
    ):  # fmt: skip
        with pytest.raises(error):
            collection.add_rep(*args)
    collection.delete_rep("features", "a", "scaled")
    with pytest.raises(KeyError):
        collection.delete_rep("features", "a", "scaled")
    with pytest.raises(ValueError, match="raw"):
        collection.delete_rep("features", "a", "raw")
    assert collection.copy(deep=True) == collection and collection.to_dict()["targets.y.raw"][1] == 2.0


def test_an_empty_set_from_a_config(ten):
    made = FeatureSet.from_config({"label": "bare", "node_id": "n"}, register=False)
    assert (made.node_id, len(made), made.get_all_keys(), made.get_features()) == ("n", 0, ["sample_uuids"], {})
    assert made.get_config() == {"label": "bare", "node_id": "n"} and made.audit().ok
