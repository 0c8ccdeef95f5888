"""Diagrams of graphs and phases, as text; ``KEYDNN_MERMAID=path/to/mermaid.min.js`` has the real Mermaid draw them in Chromium."""

import html
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

import keydnn
from keydnn.experiment import AppliedLoss, EvalPhase, FeatureSet, FitPhase, Loss, ModelGraph, ModelNode, Optimizer, PhaseGroup, TrainPhase
from keydnn.experiment.graph import ConcatNode
from keydnn.experiment.phases import InputBinding
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition, SimpleSampler
from keydnn.experiment.visualization import ModelGraphDisplayOptions, Visualizer

GRAPH = """flowchart LR
n0@{ label: "<b>FeatureSet</b><br>'parts'<br>n=8", shape: rect }
n1@{ label: "<b>ModelNode</b><br>'a'", shape: rect }
n2@{ label: "<b>ModelNode</b><br>'b'", shape: rect }
n3@{ label: "<b>ConcatNode</b><br>'both'", shape: rect }
n4@{ label: "<b>ModelNode</b><br>'head'", shape: rect }
n5@{ label: "<b>ModelNode</b><br>'aside'", shape: rect }
n6@{ label: " ", shape: circle }
n7@{ label: " ", shape: circle }
n0 e0@-->|"(1, 3)"| n1
n0 e1@-->|"(1,)"| n2
n1 e2@--> n3
n2 e3@--> n3
n3 e4@--> n4
n2 e5@--> n5
n4 e6@--> n6
n5 e7@--> n7
n0:::FeatureSet
n1:::ModelNode
n2:::ModelNode
n3:::MergeNode
n4:::ModelNode
n5:::ModelNode
n6:::Terminal
n7:::Terminal
classDef FeatureSet fill:#E1BEE7,stroke:#AA00FF
classDef ModelNode fill:#BBDEFB,stroke:#2962FF
classDef MergeNode fill:#B1B1B1,stroke:#565656
classDef Terminal fill:#616161,stroke:#616161
"""
TRAIN = """flowchart LR
n0@{ label: "<b>FeatureSet</b><br>'parts'<br>n=8", shape: rect }
n1@{ label: "<b>Sampler</b><br>'SimpleSampler'<br>batch_size: 2<br>split: train", shape: rect }
n2@{ label: "<b>ModelNode</b><br>'a'<br>&lt;keydnn&gt;<br>frozen", shape: rect }
n3@{ label: "<b>ModelNode</b><br>'b'<br>&lt;keydnn&gt;<br>frozen", shape: rect }
n4@{ label: "<b>ConcatNode</b><br>'both'", shape: rect }
n5@{ label: "<b>ModelNode</b><br>'head'<br>&lt;keydnn&gt;", shape: rect }
n6@{ label: "<b>ModelNode</b><br>'aside'<br>&lt;keydnn&gt;", shape: rect }
n7@{ label: " ", shape: circle }
n8@{ label: " ", shape: circle }
n9@{ label: "<b>AppliedLoss</b><br>'mse'<br>loss: mse", shape: stadium }
n10@{ label: "<b>AppliedLoss</b><br>'more'<br>loss: mse<br>weight: 0.5", shape: stadium }
n0 e0@-->|"split: train"| n1
n1 e1@-->|"(1, 3)"| n2
n1 e2@-->|"(1,)"| n3
n2 e3@-->|"(2,)"| n4
n3 e4@-->|"(2,)"| n4
n4 e5@-->|"(4,)"| n5
n3 e6@-->|"(2,)"| n6
n5 e7@-->|"(1,)"| n7
n6 e8@-->|"(1,)"| n8
n5 e9@-.-> n9
n6 e10@-.-> n10
n0:::FeatureSet
n1:::Sampler
n2:::FrozenNode
n3:::FrozenNode
n4:::MergeNode
n5:::ModelNode
n6:::Inactive
n7:::Terminal
n8:::Inactive
n9:::AppliedLoss
n10:::Inactive
classDef FeatureSet fill:#E1BEE7,stroke:#AA00FF
classDef Sampler fill:#FFE0B2,stroke:#FF6D00
classDef FrozenNode fill:#E3F2FD,stroke:#90CAF9,color:#616161
classDef MergeNode fill:#B1B1B1,stroke:#565656
classDef ModelNode fill:#BBDEFB,stroke:#2962FF
classDef Inactive fill:#F5F5F5,stroke:#BDBDBD,color:#616161
classDef Terminal fill:#616161,stroke:#616161
classDef AppliedLoss fill:#FFCDD2,stroke:#D50000
classDef moving stroke-dasharray:9\\,5,stroke-dashoffset:900,animation:dash 25s linear infinite
class e0,e1,e2,e3,e4,e5,e7 moving
"""
PLAN = """flowchart LR
subgraph g0["<b>PhaseGroup</b> 'plan'"]
direction LR
subgraph g1["<b>PhaseGroup</b> 'first'"]
direction LR
n0@{ label: "<b>TrainPhase</b><br>'train'<br>epochs: 3<br>reads: parts<br>split: train<br>nodes: head<br>losses: mse, more", shape: rect }
end
n1@{ label: "<b>EvalPhase</b><br>'eval'<br>reads: parts<br>split: val<br>losses: mse", shape: rect }
n2@{ label: "<b>PhaseGroup</b><br>'later'<br>empty", shape: rect }
end
n0 e0@--> n1
n1 e1@--> n2
n0:::Phase
n1:::Phase
n2:::PhaseGroup
class g0 PhaseGroup
class g1 PhaseGroup
classDef Phase fill:#FFF9C4,stroke:#F9A825
classDef PhaseGroup fill:#FAFAFA,stroke:#BDBDBD
"""
NASTY = "<b> & &amp; \"q\" 'p' |x| #35; `md` **bold** _i_ __init__ a_b \\u0041 $$x$$ {y} [z](w) %%c ; @{ -->"


def linear(n_in, n_out):
    return keydnn.Sequential(keydnn.nn.Flatten(), keydnn.nn.Linear(n_in, n_out))


def mse(node, **options):
    return AppliedLoss(Loss("mse", backend="keydnn"), node, ["outputs", "targets"], **options)


@pytest.fixture
def parts():
    fs = FeatureSet.from_dict("parts", {"u": np.ones((8, 3)), "v": np.arange(8.0), "y": np.arange(8.0)}, ["u", "v"], "y")
    fs.split_random({"train": 0.5, "val": 0.5})
    return fs


@pytest.fixture
def graph(parts):
    """Two heads joined, and a node aside: five nodes, none built."""
    a = ModelNode("a", linear(3, 2), parts.reference(features=["u"]))
    b = ModelNode("b", linear(1, 2), parts.reference(features=["v"]))
    both = ConcatNode("both", [a, b])
    nodes = [a, b, both, ModelNode("head", linear(4, 1), both), ModelNode("aside", linear(2, 1), b)]
    return ModelGraph(nodes, Optimizer("sgd", opt_kwargs={"lr": 0.01}, backend="keydnn"))


def train_phase(**options):
    arguments = {"active_nodes": ["head"], "n_epochs": 3, **options}
    losses = [mse("head"), mse("aside", weight=0.5, label="more")]
    return TrainPhase.from_split("train", split="train", sampler=SimpleSampler(batch_size=2, seed=1), losses=losses, **arguments)


def text(thing, *options):
    return Visualizer(thing, *options).get_mermaid_str()


def labels(told):
    return re.findall(r'@\{ label: "(.*?)", shape', told)


def test_a_graph(graph, parts, capsys):
    assert text(graph) == GRAPH
    assert graph.visualize() is None and capsys.readouterr().out == GRAPH + "\n"
    graph.build()
    graph.get_node("a").freeze()
    graph.visualize(show_features=True, show_targets=True, show_tags=True, show_splits=True)
    found = labels(capsys.readouterr().out)
    assert found[0].endswith("'parts'<br>n=8<br>features.u.raw (3,)<br>features.v.raw ()<br>targets.y.raw ()<br>splits: train, val")
    assert found[1].endswith("'a'<br>&lt;keydnn&gt;<br>frozen<br>features.u.raw (3,)<br>targets.y.raw ()")
    plain = text(graph, ModelGraphDisplayOptions(show_frozen=False))
    assert "frozen" not in plain and "FrozenNode" not in plain and 'n1 e2@-->|"(2,)"| n3' in plain


def test_a_training_phase_puts_samplers_before_what_runs(graph, capsys):
    graph.build()
    phase = train_phase()
    assert text(phase) == TRAIN
    assert phase.visualize() is None and capsys.readouterr().out == TRAIN + "\n"
    assert not any(node.is_frozen for node in (graph.get_node("a"), graph.get_node("b")))  # looking froze nothing


def test_one_box_per_run_of_a_sampler(graph, parts):
    conditions = {"targets.y": SimilarityCondition(mode="similar", tolerance=9.0)}
    samplers = [PairedSampler(conditions, batch_size=2, seed=1), PairedSampler(conditions, batch_size=2, seed=1), SimpleSampler(seed=1)]
    for other, n_boxes in zip(samplers[1:], (1, 2), strict=True):
        drawn = [samplers[0], other]
        bindings = [InputBinding.for_training(node=n, sampler=s, upstream=None) for n, s in zip("ab", drawn, strict=True)]
        told = text(TrainPhase("pairs", input_sources=bindings, losses=[mse("head")]))
        assert told.count("<b>Sampler</b>") == n_boxes and "split" not in told


def test_evaluation_and_fitting_draw_models_still(graph, parts):
    graph.build()
    told = text(EvalPhase.from_split("val", split="val", losses=[mse("head")], active_nodes=["both"]))
    assert 'n0 e0@-->|"split: val (1, 3)"| n1' in told and "class e0,e1,e2,e3 moving" in told
    assert [line[5:] for line in told.splitlines() if re.match(r"n\d:::", line)] == (
        ["FeatureSet", "FrozenNode", "FrozenNode", "MergeNode", "Inactive", "Inactive", "Inactive", "Inactive", "Inactive"]
    )
    linear_model = pytest.importorskip("sklearn.linear_model", reason="needs the sklearn extra")
    from keydnn.experiment import ExperimentContext

    with ExperimentContext().activate():
        fs = FeatureSet.from_dict("rows", {"u": np.ones((4, 2)), "y": np.ones(4)}, "u", "y")
        ModelGraph([ModelNode("line", linear_model.LinearRegression(), fs)])
        for freeze, word in ((True, "fit, then frozen"), (False, "fit")):
            told = text(FitPhase.from_split("fit", split=None, freeze_after_fit=freeze))
            assert labels(told)[1] == f"<b>ModelNode</b><br>'line'<br>{word}" and "n1:::FrozenNode" in told


def test_a_group_frames_its_phases(graph):
    plan = PhaseGroup("plan", [PhaseGroup("first", [train_phase()])])
    plan.add_eval_phase("eval", input_sources=EvalPhase.from_split("x", split="val").input_sources, losses=[mse("head")])
    plan.add_group(PhaseGroup("later"))
    assert text(plan) == PLAN and plan.visualize() is None


def test_a_set_that_is_gone_is_said_so(graph, parts, context):
    context.remove_node(node_id=parts.node_id)
    assert labels(text(graph))[0] == "<b>FeatureSet</b><br>'parts'<br>not registered"


def test_characters_of_html_and_mermaid_are_escaped(graph, parts):
    parts._label = NASTY
    told = text(graph).splitlines()[1]
    assert html.unescape(told).replace("#65279;", "") == f"n0@{{ label: \"<b>FeatureSet</b><br>'{NASTY}'<br>n=8\", shape: rect }}"
    inside = told.split("<br>")[1]
    assert not set(inside) & set('<>"|\\*$') and "a_b" in inside and "_i" not in inside and re.findall(r"#\w+;", inside) == ["#65279;"] * 14


DRAW = """<!doctype html><meta charset="utf-8"><body><script src="file://{library}"></script><script>
const texts = {texts}, shown = [];
mermaid.initialize({{startOnLoad: false, securityLevel: "strict"}});
(async () => {{
  for (let i = 0; i < texts.length; i++) {{
    const drawn = await mermaid.render("g" + i, texts[i]).then(d => d.svg, e => "failed: " + e.message);
    const box = document.createElement("div"); box.innerHTML = drawn; shown.push(box.textContent);
  }}
  document.body.textContent = JSON.stringify(shown);
}})();
</script>"""


@pytest.mark.slow
@pytest.mark.skipif("KEYDNN_MERMAID" not in os.environ, reason="KEYDNN_MERMAID names no mermaid.min.js")
def test_mermaid_draws_what_we_say(graph, parts, tmp_path):
    parts._label = NASTY
    graph.build()
    things = [parts, graph, train_phase(), EvalPhase.from_split("val", split="val"), FitPhase.from_split("fit", split="val")]
    things.append(PhaseGroup("plan", [PhaseGroup("first", things[2:4]), things[4]]))
    texts = json.dumps([text(thing) for thing in things]).replace("</", "<\\/")
    (tmp_path / "page.html").write_text(DRAW.format(library=os.path.abspath(os.environ["KEYDNN_MERMAID"]), texts=texts), encoding="utf-8")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--virtual-time-budget=30000", "--dump-dom"]
    page = subprocess.run([browser, *options, str(tmp_path / "page.html")], capture_output=True, text=True, timeout=120, check=True).stdout
    shown = json.loads(html.unescape(page[page.index("<body>") + 6 : page.index("</body>")]))
    assert len(shown) == 6 and not [one for one in shown if one.startswith("failed") or "Syntax error" in one]
    assert all(NASTY in one.replace("\ufeff", "") for one in shown[:5]) and "'train'epochs: 3" in shown[5]
