"""Damaged and hostile ONNX files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keydnn
from keydnn import nn

onnx = pytest.importorskip("onnx", reason="needs the onnx extra: pip install '.[onnx]'")
from onnx import TensorProto, helper  # noqa: E402

from keydnn.interop.onnx import OnnxError, UnsupportedOnnxError, from_onnx, load_onnx, to_onnx  # noqa: E402


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    model = keydnn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2), nn.LayerNorm(2)).eval()
    return to_onnx(model, (1, 1, 4, 4)).SerializeToString(), tmp_path_factory.mktemp("onnx") / "fuzzed.onnx"


@given(data=st.data())
def test_flipped_and_cut_files_give_a_model_or_a_clear_error(whole, data):
    content, path = bytearray(whole[0]), whole[1]
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        model = load_onnx(path)
        with np.errstate(all="ignore"):
            model(keydnn.zeros((1, 1, 4, 4)))
    except OnnxError:
        pass


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x09", b"PK\x03\x04", b"\x0a\xff\xff\xff\xff\x0f"])
def test_other_files(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(OnnxError, match=r"a\.onnx is no readable ONNX file"):
        load_onnx(tmp_path / "a.onnx")
    with pytest.raises(FileNotFoundError):
        load_onnx(tmp_path / "none.onnx")


def graph(nodes, constants=(), inputs=(("x", TensorProto.FLOAT),), outputs=("y",)):
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        list(constants),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])


def test_graphs_that_make_no_sense():
    relu = helper.make_node("Relu", ["x"], ["y"])
    for proto, text in [
        (graph([helper.make_node("Relu", ["z"], ["y"])]), "no value is called 'z'"),
        (graph([relu], outputs=["q"]), "no value for its output 'q'"),
        (graph([helper.make_node("Add", ["x", "b"], ["y"]), helper.make_node("Relu", ["x"], ["b"])]), "no value is called 'b'"),
        (graph([relu], [TensorProto(name="c", dims=[2**40, 2**40], data_type=1)]), "asks for an array"),
        (graph([relu], [TensorProto(name="c", dims=[-3], data_type=1)]), "asks for an array"),
        (graph([relu], [TensorProto(name="c", dims=[4], data_type=1, raw_data=b"123")]), "'c' is damaged"),
    ]:
        with pytest.raises(OnnxError, match=text):
            from_onnx(proto)
    inside = helper.make_graph([helper.make_node("Relu", ["z"], ["t"])], "t", [], [helper.make_tensor_value_info("t", 1, None)])
    with pytest.raises(OnnxError, match="no value is called 'z'"):
        from_onnx(graph([helper.make_node("If", ["x"], ["y"], then_branch=inside, else_branch=inside)]))
    model = from_onnx(graph([relu]))
    with pytest.raises(OnnxError, match=r"expected 1 inputs \(x\), got 2"):
        model(keydnn.zeros((2,)), keydnn.zeros((2,)))


def test_what_is_refused(tmp_path):
    outside = TensorProto(name="c", dims=[4], data_type=1, data_location=TensorProto.EXTERNAL)
    entry = outside.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    relu = helper.make_node("Relu", ["x"], ["y"])
    optional = helper.make_node("OptionalHasElement", ["x"], ["y"])
    for proto in (
        graph([relu], [outside]),
        graph([relu], inputs=[("x", TensorProto.STRING)]),
        graph([relu], inputs=[("x", TensorProto.FLOAT16)]),
        graph([optional]),
        graph([helper.make_node("Constant", [], ["y"], value_string="text")]),
    ):
        with pytest.raises(UnsupportedOnnxError):
            from_onnx(proto)(np.zeros(1, np.float32))


def test_names_that_python_has_no_room_for():
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, [1], [v]) for name, v in (("a.b/c", 2.0), ("a_b_c", 3.0), ("forward", 4.0), ("1", 5.0))
    ]
    chain = [
        helper.make_node("Mul", [a, name.name], [b]) for a, b, name in zip(["x", "p", "q", "r"], ["p", "q", "r", "y"], weights, strict=True)
    ]
    model = from_onnx(graph(chain, weights))
    assert model(keydnn.ones((1,))).item() == 120.0
    assert len(dict(model.named_parameters())) == 4 and callable(model.forward)
