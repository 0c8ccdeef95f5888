"""The node cases that the package onnx generates: every case whose operators have a counterpart passes, and the table says how many."""

import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the onnx extra: pip install '.[onnx]'")
from keydnn.autograd.modes import no_grad  # noqa: E402
from keydnn.interop.onnx import RULES, UnsupportedOnnxError, from_onnx  # noqa: E402

TABLE = Path(__file__).parents[3] / "docs" / "reference" / "onnx.md"


def outcome(case):
    """Whether a case passes, or is unsupported; anything else raises."""
    try:
        model = from_onnx(case.model).eval()
        for inputs, wanted in case.data_sets:
            with no_grad():
                found = model(*inputs)
            found = found if isinstance(found, tuple) else (found,)
            assert len(found) == len(wanted)
            for a, b in zip(found, wanted, strict=True):
                agree(a.numpy(), np.asarray(b), case)
    except UnsupportedOnnxError:
        return "unsupported"
    return "passed"


def agree(a, b, case):
    assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, a.dtype, b.shape, b.dtype)
    if a.dtype.kind == "f":
        np.testing.assert_allclose(a, b, rtol=case.rtol, atol=case.atol)
    else:
        np.testing.assert_array_equal(a, b)


def results():
    """Outcomes of all cases: name -> (operators, outcome)."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings(action="ignore"):  # of NumPy, while the cases are made
        cases = load_model_tests(kind="node")
    found, failed = {}, []
    for case in cases:
        try:
            found[case.name] = ({node.op_type for node in case.model.graph.node}, outcome(case))
        except (AssertionError, ValueError, TypeError) as error:
            failed.append(f"{case.name}: {error!s:.200}")
    assert not failed, "\n".join(failed)
    return found


def table(found):
    """Per operator how many cases that use it pass and how many are unsupported, as rows of Markdown."""
    passed, unsupported = Counter(), Counter()
    for operators, result in found.values():
        (passed if result == "passed" else unsupported).update(operators)
    rows = [f"| {name} | {passed[name]} | {unsupported[name]} |" for name in sorted({*passed, *unsupported}) if name in RULES]
    others = sorted({*unsupported} - set(RULES))
    return rows, others


@pytest.mark.slow
def test_all_cases_with_a_counterpart_pass_and_the_table_says_so():
    found = results()
    rows, others = table(found)
    text = TABLE.read_text(encoding="utf-8")
    count = Counter(result for _, result in found.values())
    if onnx.__version__ == re.search(r"onnx (\d+\.\d+\.\d+)", text)[1]:  # other versions make other cases
        assert [line for line in text.splitlines() if re.match(r"\| [A-Z]\w+ \| \d", line)] == rows
        assert f"{count['passed']:,} pass" in text and f"{count['unsupported']:,} have" in text
        assert all(f"`{name}`" in text for name in others)
    assert count["passed"] > 1100


def node(op, inputs, n_outputs=1, version=18, **attributes):
    from onnx import TensorProto, helper

    names = [f"x{i}" for i in range(len(inputs))]
    made = helper.make_node(op, names, [f"y{i}" for i in range(n_outputs)], **attributes)
    kinds = [helper.np_dtype_to_tensor_dtype(np.asarray(x).dtype) for x in inputs]
    graph = helper.make_graph(
        [made],
        "g",
        [helper.make_tensor_value_info(name, kind, np.shape(x)) for name, kind, x in zip(names, kinds, inputs, strict=True)],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(n_outputs)],
    )
    return from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)]))


def run(op, inputs, **options):
    return node(op, inputs, **options)(*map(np.asarray, inputs)).numpy()


X = np.random.default_rng(0).standard_normal((2, 3, 4))


def test_older_versions_keep_their_meaning():
    flat = np.exp(X.reshape(2, 12) - X.reshape(2, 12).max(axis=1, keepdims=True))
    np.testing.assert_allclose(run("Softmax", [X], version=11), (flat / flat.sum(axis=1, keepdims=True)).reshape(X.shape))
    np.testing.assert_allclose(run("ReduceSum", [X], version=11, axes=[1], keepdims=0), X.sum(axis=1))
    np.testing.assert_allclose(run("Clip", [X], version=6, min=-0.5, max=0.25), X.clip(-0.5, 0.25))
    np.testing.assert_allclose(run("Slice", [X], version=9, starts=[1], ends=[99], axes=[2]), X[:, :, 1:])
    np.testing.assert_allclose(run("Squeeze", [X[:, :1]], version=11, axes=[1]), X[:, 0])
    np.testing.assert_allclose(run("Pad", [X], version=2, pads=[0, 0, 1, 0, 0, 0]), np.pad(X, ((0, 0), (0, 0), (1, 0))))


def test_gradients_flow_through_what_is_read():
    import keydnn

    model = node("Conv", [X[None, 0], np.ones((1, 3, 2))], pads=[1, 0])
    x, w = (
        keydnn.tensor(X[:1], requires_grad=True, dtype=np.float64),
        keydnn.tensor(np.ones((1, 3, 2)), requires_grad=True, dtype=np.float64),
    )
    assert keydnn.gradcheck(lambda a, b: (model(a, b) ** 2).sum(), (x, w))


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "text"),
    [
        ("Gather", [X, np.array([7])], {}, "index"),
        ("Reshape", [X, np.array([5, 5])], {}, "do not fit|reshape"),
        ("Expand", [X[:, :1], np.array([1, 2**40, 1])], {}, "asks for an array|do not fit"),
        ("ConstantOfShape", [np.array([2**20, 2**20])], {}, "asks for an array"),
        ("Tile", [X, np.array([2**20, 2**20, 1])], {}, "asks for an array"),
        ("Range", [np.array(0), np.array(2**50), np.array(1)], {}, "asks for an array"),
        ("Range", [np.array(0), np.array(5), np.array(0)], {}, "step of 0"),
        ("Pad", [X, np.array([2**40, 0, 0, 0, 0, 0])], {}, "asks for an array"),
        ("OneHot", [np.array([1]), np.array(2**50), np.array([0, 1])], {}, "asks for an array"),
        ("Conv", [X, np.ones((1, 3, 9))], {}, "does not fit"),
        ("Conv", [X, np.ones((1, 3, 2))], {"strides": [0]}, "strides"),
        ("ConvTranspose", [X, np.ones((3, 1, 2))], {"strides": [2**40]}, "asks for an array"),
        ("MaxPool", [X], {"kernel_shape": [9]}, "does not fit"),
        ("Div", [np.array([1]), np.array([0])], {}, "by zero"),
        ("Split", [X, np.array([1, 2])], {"axis": 2, "n_outputs": 2}, "Split of 4"),
        ("MatMul", [X, X], {}, "do not fit"),
        ("LSTM", [X, X], {}, "do not fit"),
    ],
)
def test_inputs_that_do_not_fit_are_told(op, inputs, attributes, text):
    with pytest.raises(ValueError, match=text):
        run(op, inputs, **attributes)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Mod", [X, X], {}),
        ("LSTM", [X, np.ones((1, 8, 4)), np.ones((1, 8, 2))], {"clip": 1.0, "n_outputs": 3}),
        ("RNN", [X, np.ones((1, 2, 4)), np.ones((1, 2, 2))], {"activations": ["Affine"], "n_outputs": 2}),
        ("LpNormalization", [X], {"p": 3}),
        ("Einsum", [np.ones((2, 2))], {"equation": "ii->i"}),
        ("NonZero", [X], {}),
        ("Relu", [X], {"domain": "com.example"}),
        ("Cast", [X], {"to": 10}),
        ("Relu", [X], {"slope_of_tomorrow": 2.0}),
    ],
)
def test_what_has_no_counterpart_is_told(op, inputs, attributes):
    with pytest.raises(UnsupportedOnnxError, match="no counterpart"):
        run(op, inputs, **attributes)
