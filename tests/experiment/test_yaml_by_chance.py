"""YAML of any options, conditions and values, drawn by chance, comes again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import keydnn
from keydnn.experiment import (
    Accelerator,
    AppliedLoss,
    Checkpointing,
    EarlyStopping,
    ExperimentContext,
    Loss,
    ModelGraph,
    ModelNode,
    Optimizer,
    TrainPhase,
)
from keydnn.experiment.documents.sides import Reader, Writer
from keydnn.experiment.documents.text import from_text, to_text
from keydnn.experiment.documents.values import VALUE
from keydnn.experiment.equality import same_values
from keydnn.experiment.io import from_yaml
from keydnn.experiment.models.keydnn import SequentialMLP
from keydnn.experiment.predicates import GT, In
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition, SimpleSampler
from tests.experiment.yaml_studies import anew, cells, same, sgd

names = st.text("abcdefghijklmnopqrstuvwxyzäß_-0123456789~!#&*'\"{}[],%@`|>?=", min_size=1, max_size=8)
seeds = st.one_of(st.integers(0, 2**62))


@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "batch_size": st.integers(1, 2**40),
            "shuffle": st.booleans(),
            "drop_last": st.booleans(),
            "group_by": st.lists(names, min_size=1, max_size=3),
            "seed": seeds,
            "strict_stratification": st.booleans(),
            "show_progress": st.booleans(),
        },
    )
)
def test_any_sampler_comes_again(options, tmp_path_factory):
    sampler = SimpleSampler(**options)
    assert same(from_yaml(sampler.to_yaml(tmp_path_factory.mktemp("any") / "s")), sampler)


@given(
    conditions=st.dictionaries(
        names,
        st.builds(
            SimilarityCondition,
            mode=st.sampled_from(["similar", "dissimilar"]),
            tolerance=st.floats(allow_nan=True),
            weight_mode=st.sampled_from(["binary", "linear", "exp"]),
            max_weight=st.floats(),
            min_weight=st.floats(),
            allow_fallback=st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
    most=st.none() | st.integers(1, 9),
)
def test_any_condition_comes_again_to_the_bit(conditions, most, tmp_path_factory):
    sampler = PairedSampler(conditions, max_pairs_per_anchor=most, seed=0)
    again = from_yaml(sampler.to_yaml(tmp_path_factory.mktemp("any") / "s"))
    for name, condition in again.conditions.items():
        assert same_values(condition.get_config(), conditions[name].get_config())
    assert again.max_pairs_per_anchor == most and list(again.conditions) == list(conditions)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        [
            "no",
            "1e-3",
            "0x1f",
            "1:30",
            "2024-01-01",
            "~",
            "<<",
            "=",
            ".inf",
            "null",
            "010",
            "1_000",
            "",
            " x ",
            "a: b",
            "- c",
            "\u2028",
            "\x00",
        ]
    )
)
arrays = st.builds(
    lambda dtype, shape: np.arange(int(np.prod(shape))).reshape(shape).astype(dtype),
    st.sampled_from(["f4", "f8", "i2", "?", "<U3"]),
    st.sampled_from([(), (3,), (2, 0), (2, 2)]),
)
values = st.recursive(
    scalars | st.binary(max_size=8) | arrays | st.sampled_from([np.float32(0.1), np.float64(0.1), np.int8(3), GT(2.5), In(["a", 1])]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.sampled_from(["$x", "ref_type"]), inner, max_size=3)
        | st.dictionaries(st.tuples(st.integers()), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(value=values)
def test_any_value_comes_again(value):
    ctx = ExperimentContext()
    text = to_text(VALUE.tell(Writer("", ctx), {"value": value}))
    again = VALUE.read(Reader("", ctx, overwrite=False, allow_packaged_code=False), from_text(text, "text"))["value"]
    assert _bare(again) == _bare(value)


def _bare(value):
    """Types and bits of everything inside."""
    if isinstance(value, dict):
        return ("dict", [(_bare(key), _bare(item)) for key, item in value.items()])
    if isinstance(value, list | tuple):
        return (type(value).__name__, [_bare(item) for item in value])
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return ("array", array.dtype.str, array.shape, array.tobytes())
    return (type(value).__name__, repr(value))


@given(
    options=st.fixed_dictionaries(
        {"n_epochs": st.integers(1, 99)},
        optional={
            "batch_schedule": st.sampled_from(["zip_strict", "zip_cycle", "alternate_strict", "alternate_cycle"]),
            "result_recording": st.sampled_from(["all", "last", "none"]),
            "accelerator": st.sampled_from(["cpu", "cuda:1", Accelerator("gpu", pin_memory=True)]),
            "resample": st.sampled_from(["never", "epoch", "epoch_full"]),
            "prefetch": st.sampled_from(["auto", "all", "lazy"]),
            "keep": st.sampled_from([("outputs",), ("outputs", "targets")]),
            "checkpointing": st.builds(
                Checkpointing,
                save_on=st.sampled_from(["epoch_end", "epoch_start"]),
                every_n=st.integers(1, 5),
                max_to_keep=st.none() | st.integers(1, 3),
                name_template=st.none() | st.just("{phase}-{epoch}"),
                directory=st.none() | st.just("no/such/folder"),
            ),
            "callbacks": st.lists(
                st.builds(
                    EarlyStopping,
                    label=st.text(min_size=1, max_size=4),
                    mode=st.sampled_from(["min", "max"]),
                    min_delta=st.floats(0, allow_infinity=False),
                    patience=st.integers(1, 9),
                    reducer=st.sampled_from(["mean", "sum", "last", "first"]),
                    execution_order=st.integers(-3, 3),
                ),
                max_size=2,
                unique_by=lambda callback: callback.label,
            ),
        },
    ),
    weight=st.floats(allow_nan=False),
    label=st.text(min_size=1, max_size=5),
)
def test_any_training_phase_comes_again(options, weight, label, tmp_path_factory):
    with ExperimentContext(registration_policy="error").activate():
        net = ModelNode("net", SequentialMLP(), cells())
        ModelGraph([net], sgd())
        loss = AppliedLoss(Loss("mse", backend="keydnn", reduction="sum"), net, {"outputs": "outputs", "targets": "targets"}, weight=weight)
        sampler = SimpleSampler(batch_size=2)
        phase = TrainPhase.from_split(label, split="train", sampler=sampler, losses=[loss], **options)
        assert TrainPhase.from_yaml(phase.to_yaml(tmp_path_factory.mktemp("any") / "p")) == phase


@given(
    options=st.fixed_dictionaries(
        {"opt": st.sampled_from(["adam", "SGD", keydnn.optim.Adam])},
        optional={
            "opt_kwargs": st.dictionaries(st.sampled_from(["lr", "eps"]), st.floats(0, 1)) | st.just({"betas": (0.8, 0.9)}),
            "clip_norm": st.floats(0.0, exclude_min=True, allow_infinity=False),
            "clip_value": st.floats(0.0, exclude_min=True),
        },
    )
)
def test_any_optimizer_comes_again(options, tmp_path_factory):
    with ExperimentContext(registration_policy="error").activate():
        fs = cells()
        graph = ModelGraph([ModelNode("net", SequentialMLP(), fs)], Optimizer(**options, backend="keydnn"))
        path = graph.to_yaml(tmp_path_factory.mktemp("any") / "g")
        with anew(fs).activate():
            assert same(ModelGraph.from_yaml(path), graph)
