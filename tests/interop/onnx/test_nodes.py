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

NOISY = dict.fromkeys(("test_dft_inverse", "test_dft_inverse_opset19"), 1e-6)  # want 1.9e-7 of rounding where ours is 0, which is exact
TABLE = Path(__file__).parents[3] / "docs" / "reference" / "onnx.md"


SETTINGS = {"test_scan_sum", *(f"test_training_dropout{end}" for end in ("", "_mask", "_default", "_default_mask"))}
REASONS = {  # why a case has no counterpart
    "type": "the element type|values of (float16|bfloat16|object|<U|int4|uint4)",
    "kind of value": "is no plain tensor",
    "operator": r"^ONNX operator \w+( of domain '[\w.]*')? has no counterpart here",
}


def reason(case, message):
    """What a case asks for that does not exist here; a setting of an operator that does must be one of a few."""
    found = next((name for name, text in REASONS.items() if re.search(text, message)), "setting")
    assert (found == "setting") == (case.name in SETTINGS), message
    return found


def outcome(case):
    """The word "passed", or why a case is unsupported; anything else raises."""
    try:
        model = from_onnx(case.model).eval()
        for inputs, wanted in case.data_sets:
            with no_grad():
                found = model(*map(plain, inputs))
            found = found if isinstance(found, tuple) else (found,)
            assert len(found) == len(wanted)
            for a, b in zip(found, wanted, strict=True):
                agree(a.numpy(), np.asarray(plain(b)), case)
    except UnsupportedOnnxError as error:
        return reason(case, str(error))
    return "passed"


def plain(x):
    """Some cases come with their arrays packed."""
    return onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x


def agree(a, b, case):
    assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, a.dtype, b.shape, b.dtype)
    if a.dtype.kind == "f":
        np.testing.assert_allclose(a, b, rtol=case.rtol, atol=NOISY.get(case.name, case.atol))
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


@pytest.mark.long
def test_all_cases_with_a_counterpart_pass_and_the_table_says_so():
    found = results()
    rows, others = table(found)
    text = TABLE.read_text(encoding="utf-8")
    count = Counter(result for _, result in found.values())
    if onnx.__version__ == re.search(r"onnx (\d+\.\d+\.\d+)", text)[1]:  # other versions make other cases
        assert [line for line in text.splitlines() if re.match(r"\| [A-Z]\w+ \| \d", line)] == rows
        assert sum(count.values()) == 1884
        assert says(count) in " ".join(text.split())
        assert all(f"`{name}`" in text for name in others)
    assert count["passed"] > 1500


def says(count):
    """The sentence of the documentation."""
    words = {
        "type": "other element types",
        "operator": "an operator",
        "kind of value": "sequences or optional values",
        "setting": "a setting",
    }
    parts = ", ".join(f"{count[name]} {text}" for name, text in words.items())
    others = sum(count.values()) - count["passed"]
    return f"{count['passed']:,} pass, none fails, and {others} need what has no counterpart: {parts}"


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


GRADIENTS = [  # operator, inputs that gradients flow to, the others, attributes
    ("Conv", [X[:1], np.ones((1, 3, 2))], [], {"pads": [1, 0]}),
    ("Resize", [X[:1]], [np.zeros(0), np.array([1.0, 1.0, 2.5])], {"mode": "cubic"}),
    ("Resize", [X[:1]], [np.zeros(0), np.array([1.0, 2.0, 0.5])], {"mode": "nearest"}),
    ("GridSample", [X[:, None], np.linspace(-0.8, 0.7, 8).reshape(2, 2, 1, 2)], [], {}),
    ("GridSample", [X[:, None], np.linspace(-1.7, 1.6, 8).reshape(2, 2, 1, 2)], [], {"mode": "cubic", "padding_mode": "reflection"}),
    ("TopK", [X], [np.array([2])], {"n_outputs": 2}),
    ("Compress", [X], [np.array([True, False, True])], {"axis": 1}),
    ("ReverseSequence", [X], [np.array([1, 2, 2])], {}),
    ("CumProd", [X], [np.array(2)], {"exclusive": 1, "reverse": 1}),
    ("Col2Im", [X], [np.array([2, 4]), np.array([1, 3])], {}),
    ("STFT", [X[..., :1]], [np.array(1)], {}),
    ("RotaryEmbedding", [X, np.ones((2, 3, 2)), X[:, :, :2]], [], {"num_heads": 1, "interleaved": 1}),
    ("ConvTranspose", [X[:, :, None, None], np.ones((3, 2, 1, 1, 2))], [], {}),
    ("Einsum", [X[:, :, :3]], [], {"equation": "bii->ib"}),
    ("Asinh", [X], [], {}),
    ("Acosh", [abs(X) + 1.5], [], {}),
    ("Atanh", [np.tanh(X)], [], {}),
]


@pytest.mark.parametrize(("op", "inputs", "others", "attributes"), GRADIENTS, ids=lambda v: v if isinstance(v, str) else "")
def test_gradients_flow_through_what_is_read(op, inputs, others, attributes):
    import keydnn

    model = node(op, [*inputs, *others], **attributes)
    first = (lambda *xs: model(*xs, *others)[0]) if attributes.get("n_outputs", 1) > 1 else (lambda *xs: model(*xs, *others))
    assert keydnn.gradcheck(
        lambda *xs: (first(*xs) ** 2).sum(), tuple(keydnn.tensor(x, requires_grad=True, dtype=np.float64) for x in inputs)
    )


def test_outputs_that_are_left_out_stay_out():
    """The name of an output that nobody wants is empty, as is that of an input that is not given."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Dropout", ["x"], ["a", ""]),
        helper.make_node("RNN", ["a", "w", "r"], ["", "h"], hidden_size=2),
        helper.make_node("RNN", ["a", "w", "r", "", "", "h"], ["y"], hidden_size=2),
        helper.make_node("LayerNormalization", ["y", "s"], ["z", "", "inverse"]),
    ]
    weights = [helper.make_tensor(n, TensorProto.DOUBLE, s, np.full(s, 0.3)) for n, s in (("w", (1, 2, 4)), ("r", (1, 2, 2)), ("s", (2,)))]
    kind = TensorProto.DOUBLE
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, None)],
        [helper.make_tensor_value_info(n, kind, None) for n in ("z", "inverse")],
        weights,
    )
    z, inverse = from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))(X)
    assert z.shape == (2, 1, 3, 2) and inverse.shape == (2, 1, 3, 1)


def counting(limit, body_of):
    """A Loop of ``limit`` steps (None: no limit) that adds 1 to x; its condition is what ``body_of`` computes."""
    from onnx import TensorProto, helper

    def info(name, kind=TensorProto.DOUBLE):
        return helper.make_tensor_value_info(name, kind, None)

    body = helper.make_graph(
        [helper.make_node("Add", ["v", "one"], ["w"]), *body_of(helper)],
        "body",
        [info("i", TensorProto.INT64), info("c", TensorProto.BOOL), info("v")],
        [info("c2", TensorProto.BOOL), info("w"), info("w")],
    )
    constants = [helper.make_tensor("one", TensorProto.DOUBLE, [], [1.0]), helper.make_tensor("end", TensorProto.DOUBLE, [], [5.0])]
    if limit is not None:
        constants.append(helper.make_tensor("n", TensorProto.INT64, [], [limit]))
    loop = helper.make_node("Loop", ["" if limit is None else "n", "", "x"], ["last", "all"], body=body)
    graph = helper.make_graph([loop], "g", [info("x")], [info("last"), info("all")], constants)
    return from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def test_loops():
    import keydnn

    def below_end(helper):
        return [helper.make_node("Less", ["w", "end"], ["c2"])]

    def always(helper):
        return [helper.make_node("Identity", ["c"], ["c2"])]

    x = keydnn.tensor(np.array(2.0), dtype=np.float64, requires_grad=True)
    last, rows = counting(None, below_end)(x)
    assert last.item() == 5.0 and rows.tolist() == [3.0, 4.0, 5.0]
    rows.sum().backward()
    assert x.grad.item() == 3.0
    last, rows = counting(0, always)(x)
    assert last.item() == 2.0 and rows.shape == (0,)
    with pytest.raises(ValueError, match="more than 65,536 steps"):
        counting(2**60, always)(x)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "text"),
    [
        ("Gather", [X, np.array([7])], {}, "index"),
        ("Reshape", [X, np.array([5, 5])], {}, "do not fit|reshape"),
        ("Expand", [X[:, :1], np.array([1, 2**40, 1])], {}, "asks for an array|do not fit"),
        ("ConstantOfShape", [np.array([2**20, 2**20])], {}, "asks for an array"),
        ("Tile", [X, np.array([2**20, 2**20, 1])], {}, "asks for an array"),
        ("Concat", [np.broadcast_to(np.int8(1), (2**26,))] * 3, {"axis": 0}, "asks for an array"),
        ("Mul", [np.broadcast_to(np.int8(1), (2**60, 1)), np.array([[1, 2, 3]], np.int8)], {}, "do not fit"),
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
        ("Resize", [X, np.array([]), np.array([1.0, 1, 2.0**40])], {}, "asks for an array"),
        ("Resize", [X, np.array([]), np.array([1.0, 1, -1])], {}, "scales"),
        ("Resize", [X, np.array([]), np.array([1.0, 1])], {}, "as many scales or sizes"),
        ("TopK", [X, np.array([9])], {"n_outputs": 2}, "9 of 4 elements"),
        ("Compress", [X, np.ones(9, bool)], {"axis": 1}, "place 8 of 3"),
        ("ReverseSequence", [X, np.array([1, 9, 1])], {}, "lengths"),
        ("TensorScatter", [X, X[:, :2], np.array([0, 2])], {}, "places 0 to 3 of 3"),
        ("MaxUnpool", [X, np.full(X.shape, 99)], {"kernel_shape": [1]}, "an index of 99"),
        ("CenterCropPad", [X, np.array([2**20, 2**20, 4])], {}, "asks for an array"),
        ("BitCast", [X], {"to": 1}, "different sizes"),
        ("HannWindow", [np.array(2**50)], {}, "asks for an array"),
        ("GridSample", [X, X], {}, "belong together"),
        ("DFT", [X], {}, "real and imaginary"),
        ("STFT", [X[..., None], np.array(0)], {}, "every 0"),
        ("GatherND", [X, np.zeros((1, 1), np.int64)], {"batch_dims": 1}, "batch_dims=1"),
        ("Einsum", [X], {"equation": "bii->bi"}, "3 and 4"),
        ("Adam", [np.array(0.1), np.array(0), X], {"n_outputs": 3}, "1 arrays"),
        ("LinearAttention", [X, X, X], {"q_num_heads": 1, "kv_num_heads": 1, "n_outputs": 2}, "gated_delta"),
        ("QuantizeLinear", [X, np.ones((2, 2)), np.array(1, np.int8)], {}, "without block_size"),
    ],
)
def test_inputs_that_do_not_fit_are_told(op, inputs, attributes, text):
    with pytest.raises(ValueError, match=text):
        run(op, inputs, **attributes)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Dropout", [X, np.array(0.5), np.array(True)], {}),
        ("LSTM", [X, np.ones((1, 8, 4)), np.ones((1, 8, 2))], {"clip": 1.0, "n_outputs": 3}),
        ("RNN", [X, np.ones((1, 2, 4)), np.ones((1, 2, 2))], {"activations": ["Affine"], "n_outputs": 2}),
        ("LpNormalization", [X], {"p": 3}),
        ("Atan", [X], {}),
        ("GridSample", [X[:, None], np.zeros((2, 3, 3, 2))], {"padding_mode": "of tomorrow"}),
        ("Resize", [X, np.array([]), np.array([1.0, 2, 2])], {"coordinate_transformation_mode": "of tomorrow"}),
        ("Scan", [X], {"version": 8}),
        ("ScatterElements", [X, np.zeros((1, 1, 1), np.int64), X[:1, :1, :1]], {"reduction": "of tomorrow"}),
        ("Relu", [X], {"domain": "com.example"}),
        ("Cast", [X], {"to": 10}),
        ("Relu", [X], {"slope_of_tomorrow": 2.0}),
    ],
)
def test_what_has_no_counterpart_is_told(op, inputs, attributes):
    with pytest.raises(UnsupportedOnnxError, match="no counterpart"):
        run(op, inputs, **attributes)
