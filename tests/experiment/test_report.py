"""The report page: what it tells of runs and folds, of files and of experiments in memory, and of what was not recorded."""

import html
import re
import zipfile
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner

from keydnn.cli.commands import commands
from keydnn.experiment import CrossValidation, Experiment, ExperimentContext, FeatureSet, ModelNode
from keydnn.experiment.callbacks import ExperimentCallback
from keydnn.experiment.errors import ArtifactError
from keydnn.experiment.report import report_file
from keydnn.experiment.report.charts import Curve, curves
from keydnn.experiment.report.outcomes import Outcome, _classes, outcomes_of, pooled
from keydnn.experiment.report.picture import draw
from keydnn.experiment.results import TrainResults
from keydnn.experiment.visualization.mermaid import Diagram, Node
from tests.experiment.test_experiment_files import QUIET
from tests.experiment.test_experiment_files import Bench as Nested
from tests.experiment.test_folds import Bench

SECTIONS = "summary graph data plan training metrics evaluations runs environment".split()
BESIDE_ITS_LABEL = {"br", "hr", "img", "link", "meta"}


class Page(HTMLParser):
    """The text of every section, the cells of every table, and whether every tag is closed."""

    def __init__(self, path):
        super().__init__()
        self.text, self.rows, self._open, self._section = {}, [], [], None
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        if tag == "section":
            self._section = dict(attributes)["id"]
            self.text[self._section] = ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in BESIDE_ITS_LABEL:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._section is not None:
            self.text[self._section] += data
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def row(self, name):
        """The cells of the first row that begins so."""
        return next(row for row in self.rows if row and row[0] == name)


@pytest.fixture(autouse=True)
def own_context():
    with ExperimentContext().activate():
        yield


@pytest.fixture
def bench():
    return Bench("keydnn")


def test_folds_side_by_side(bench, tmp_path):
    found = CrossValidation(bindings=bench.binding, n_folds=3).run(show_fold_progress=False, **QUIET)
    bench.exp.run(**QUIET)
    page = Page(bench.exp.report(tmp_path / "deep" / "page.html"))
    assert list(page.text) == SECTIONS and "Not recorded" not in page.html
    summary = found.summary("train_loss")
    numbers = [summary.mean, summary.std, min(summary.per_fold), max(summary.per_fold), *summary.per_fold]
    assert page.row("train/train_loss") == ["train/train_loss", *(f"{value:.4g}" for value in numbers)]
    assert ["train", "24", "60.0%", "all rows"] in page.rows and bench.fs.fingerprint in page.text["summary"]
    assert "Audit: no leak found" in page.text["data"] and "fitted to the rows of train" in page.text["data"]
    drawn = [page.html.count(f"class='line train{bold}'") for bold in (" bold", "")]
    assert drawn == [2, 3]  # the mean and the run by itself; a line per fold
    sides = [found.get_fold(1)["test"].stacked_tensors("net", domain, fmt="np") for domain in ("outputs", "targets")]
    outputs, targets = (side.reshape(-1) for side in sides)
    rmse = float(np.sqrt(np.mean((outputs - targets).astype(np.float64) ** 2)))
    assert page.row("test/RMSE *")[6] == f"{rmse:.4g}"
    assert page.text["evaluations"].count("24 rows of all folds together") == 1  # 8 test rows in each of three folds
    host = bench.exp.last_run.metadata["host"]
    assert f">{host}<" not in page.html and bench.exp.last_run.metadata["python"] in page.text["environment"]


def test_a_file_tells_what_the_experiment_does(tmp_path):
    exp = Nested().exp
    exp.run(**QUIET)
    first = Page(exp.report(tmp_path / "memory.html"))
    file = exp.save(tmp_path / "trial")
    second = Page(report_file(file, tmp_path / "file.html"))
    for name in SECTIONS[1:-1]:
        assert first.text[name] == second.text[name]
    assert "trial.exp.mml" in second.text["summary"] and "fitted to 24 rows" in second.text["data"]
    assert "'head'" in second.text["graph"] and "frozen" not in second.text["graph"]
    assert report_file(file, tmp_path / "again.html").read_bytes() == (tmp_path / "file.html").read_bytes()
    bare = Page(report_file(exp.save(tmp_path / "bare", include_data=False), tmp_path / "bare.html"))
    assert "Not recorded: an audit of cells" in bare.text["data"] and "include_data=True" in bare.text["data"]
    assert bare.text["metrics"] == first.text["metrics"] and bare.text["evaluations"] == first.text["evaluations"]


def test_nothing_to_tell(tmp_path):
    exp = Experiment("empty", ctx=ExperimentContext(), seed=1)
    page = Page(exp.report(tmp_path / "page.html"))
    for name in ("graph", "data", "plan", "training", "metrics", "evaluations", "runs", "environment"):
        assert "Not recorded: " in page.text[name] and "To have it: " in page.text[name]
    with exp.ctx.activate():
        FeatureSet.from_dict("cells", {"u": np.arange(3.0)}, "u", [])
    page = Page(exp.report(tmp_path / "page.html"))
    assert "Not recorded: splits" in page.text["data"] and "no leak" not in page.text["data"]  # there was nothing to leak into


class Breaks(ExperimentCallback):
    def on_phase_end(self, experiment, phase, results):
        if phase.label == "test":
            raise KeyError("<oh>")


def test_a_run_that_failed(bench, tmp_path):
    bench.exp.add_callback(Breaks())
    with pytest.raises(KeyError):
        bench.exp.run(**QUIET)
    page = Page(bench.exp.report(tmp_path / "page.html"))
    assert "1 failed" in page.text["summary"] and "failed in phase test: KeyError: '<oh>'" in page.text["runs"]
    assert "Traceback" in page.text["runs"] and "train/train_loss" in page.text["metrics"]  # what there was until then


def test_code_in_a_file_is_not_run(bench, tmp_path, monkeypatch):
    (tmp_path / "mine_for_report.py").write_text(
        "import keydnn\nclass Mine(keydnn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.inner = keydnn.Dense(1)\n    def forward(self, x):\n        return self.inner(x.reshape(x.shape[0], -1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import mine_for_report

    with ExperimentContext().activate():
        exp = _with_model(mine_for_report.Mine())
        exp.run(**QUIET)
        file = exp.save(tmp_path / "own")
    monkeypatch.delitem(__import__("sys").modules, "mine_for_report")
    (tmp_path / "mine_for_report.py").write_text("raise SystemExit('was run')")
    page = Page(report_file(file, tmp_path / "page.html"))
    assert "'net'" in page.text["graph"] and "train/train_loss" in page.text["metrics"] and "Not recorded" not in page.html


def _with_model(model):
    from keydnn.experiment import AppliedLoss, EvalPhase, Loss, ModelGraph, Optimizer, TrainPhase
    from keydnn.experiment.samplers import SimpleSampler

    fs = FeatureSet.from_dict("rows", {"x": np.arange(8.0), "y": np.arange(8.0)}, "x", "y")
    fs.split_random({"train": 0.5, "test": 0.5})
    net = ModelNode("net", model, fs)
    ModelGraph([net], Optimizer("sgd", backend="keydnn"))
    exp = Experiment.from_active_context("own", seed=0)
    loss = AppliedLoss(Loss("mse", backend="keydnn"), net, ["outputs", "targets"])
    exp.execution_plan.add_phase(TrainPhase.from_split("train", split="train", sampler=SimpleSampler(batch_size=4), losses=[loss]))
    exp.execution_plan.add_phase(EvalPhase.from_split("test", split="test", losses=[loss]))
    return exp


def test_the_folder_of_a_run(bench, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        report_file(tmp_path, tmp_path / "page.html")
    bench.exp.run(run_dir=tmp_path / "run", **QUIET)
    over, whole = (Page(path) for path in (report_file(tmp_path / "run", tmp_path / "a.html"), bench.exp.report(tmp_path / "b.html")))
    for name in ("graph", "data", "plan", "training", "metrics", "evaluations"):
        assert over.text[name] == whole.text[name]
    assert "1 completed" in over.text["summary"]
    bench.exp.add_callback(Breaks())
    with pytest.raises(KeyError):
        bench.exp.run(run_dir=tmp_path / "second", **QUIET)
    done = CliRunner().invoke(commands, ["experiment", "report", str(tmp_path / "second")])
    assert done.exit_code == 0, done.output
    page = Page(tmp_path / "second" / "report.html")
    assert "1 completed, 1 stopped" in page.text["summary"] and "goes on with it" in page.text["summary"]
    assert "train/train_loss" in page.text["metrics"] and page.text["data"] == over.text["data"]


def test_from_the_command_line(bench, tmp_path):
    file = bench.exp.save(tmp_path / "trial")

    def called(*arguments):
        done = CliRunner().invoke(commands, ["experiment", "report", *map(str, arguments)])
        return done.exit_code, done.output

    page = tmp_path / "trial.html"
    assert called(file) == (0, f"wrote {page}\n") and "Not recorded: runs" in page.read_text(encoding="utf-8")
    assert called(file, "-o", tmp_path / "other.html")[0] == 0 and (tmp_path / "other.html").exists()
    before = page.read_bytes()
    code, output = called(bench.fs.save(tmp_path / "cells"), "-o", page)
    assert code == 1 and "holds a feature set; a report is made of an experiment" in output
    broken = tmp_path / "broken.exp.mml"
    for member, old, new in (("state.json", b'"history":[]', b'"history":3'), ("config.json", b'"label":"error"', b'"label":1.5')):
        with zipfile.ZipFile(file) as source, zipfile.ZipFile(broken, "w") as target:
            for name in source.namelist():
                target.writestr(name, source.read(name).replace(old, new) if name == member else source.read(name))
        code, output = called(broken, "-o", page)
        assert code == 1 and "malformed" in output and page.read_bytes() == before
    assert not list(tmp_path.glob("*.new"))
    with pytest.raises(ArtifactError, match="no artifact"):
        report_file(page, tmp_path / "x.html")


# -- parts --------------------------------------------------------------------------------------------------------------------


def points(svg):
    return [float(n) for n in re.findall(r"[-\d.]+", " ".join(re.findall(r" d='([^']*)'", svg)))]


def test_curves_of_any_values():
    epochs = np.arange(1.0, 5001.0)
    spike = np.where(epochs == 2345, 1e3, 1.0 / epochs)
    svg = curves("loss", [Curve("training", epochs, spike, "train")])
    assert "logarithmic" in svg and len(svg) < 12_000  # thinned, and the spike is still at the top
    tops = [float(y) for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", svg.split("class='line")[1])]
    assert min(tops) == pytest.approx(12, abs=5)
    gap = curves("loss", [Curve("training", np.arange(1.0, 6.0), np.array([1, np.nan, 3, 2, np.inf]), "train")])
    assert "2 values NaN or infinite" in gap and "nan" not in gap and gap.count("<circle") == 3
    assert "All of its 1 values are NaN" in curves("loss", [Curve("a", np.ones(1), np.full(1, np.nan), "train")])
    one = curves("loss", [Curve("training", np.ones(1), np.full(1, 0.5), "train")])
    assert one.count("<circle") == 1 and ">1</text>" in one and ">1.2</text>" not in one
    for values in ([0.0, 0.0], [1.0, 1.0 + 1e-16], [-1.7e308, 1.7e308], [5e-324, 0.0], [1e-320, 1e300]):
        assert np.all(np.isfinite(points(curves("x", [Curve("a", np.array([1.0, 2.0]), np.array(values), "val")]))))


@pytest.mark.parametrize(
    ("truth", "found", "classes"),
    [
        ([[2], [0]], [[0, 1, 9], [5, 1, 2]], ([2, 0], [2, 0], 3)),
        ([[0, 1], [1, 0]], [[0.2, 0.8], [0.3, 0.7]], ([1, 0], [1, 1], 2)),
        ([[1.0], [0.0]], [[0.4], [0.5]], ([1, 0], [0, 1], 2)),
        ([[1.0], [0.0]], [[-0.4], [3.0]], ([1, 0], [0, 1], 2)),  # logits
        ([[7], [9]], [[7.0], [3.0]], ([7, 9], [7, 3], 0)),
        ([["b"], ["a"]], [["b"], ["b"]], (["b", "a"], ["b", "b"], 0)),
        ([[2.5], [0.0]], [[1.0], [2.0]], None),
        ([[3], [0]], [[0, 1, 9], [5, 1, 2]], None),  # class 3 of three
        ([[1.0, 1.0]], [[1.0, 2.0]], None),
        ([[np.nan], [1.0]], [[1.0], [1.0]], None),
    ],
)
def test_which_targets_are_classes(truth, found, classes):
    got = _classes(np.array(truth), np.array(found))
    assert (got is None) == (classes is None)
    if classes is not None:
        assert (got[0].tolist(), got[1].tolist(), got[2]) == classes


def test_scores_and_pooling():
    one = Outcome("a", "n", False, np.array([[1.0], [3.0]]), np.array([[2.0], [3.0]]), 0, ("y",))
    assert one.scores() == {"RMSE": pytest.approx(0.5**0.5), "MAE": 0.5, "R²": 0.5}
    assert pooled([one, one]).truth.shape == (4, 1)
    flat = Outcome("a", "n", False, np.ones((2, 1)), np.ones((2, 1)), 0, ("y",))
    assert flat.scores() == {"RMSE": 0.0, "MAE": 0.0}
    named = Outcome("a", "n", True, np.array([1, 2, 2]), np.array([1, 2, 1]), 3, ("y",))
    assert named.scores() == {"accuracy": pytest.approx(2 / 3)}


def test_validation_stands_in_for_an_evaluation(bench):
    bench.exp.run_phase(bench.train, **QUIET)
    results = bench.exp.last_run.results
    assert isinstance(results, TrainResults)
    skipped = {}
    (found,) = outcomes_of(results, skipped)
    last = results.validation("watch").values()[-1]
    assert (found.path, found.node, skipped) == ("train/watch", "net", {})
    assert np.array_equal(found.found, last.stacked_tensors("net", "outputs", fmt="np").reshape(8, 1).astype(np.float64))


def test_labels_are_text(tmp_path):
    label = "<script>'\"&</script>\ud800\x00"
    page = Experiment(label, ctx=ExperimentContext(), seed=0).report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page and html.escape("<script>'\"&</script>") + "\ufffd\ufffd" in page


def test_boxes_of_a_graph_keep_apart():
    diagram = Diagram()
    names = [diagram.add(Node("ModelNode", "ModelNode", f"n{i}" + "日本" * i, ("a line",))) for i in range(12)]
    for i, name in enumerate(names):
        for j in {i // 2 - 1, i // 3 - 2} & set(range(i)):
            diagram.connect(names[j], name, "(1, 2)")
    svg = draw(diagram, "graph")
    boxes = [[float(n) for n in one] for one in re.findall(r"<rect x='(\S+)' y='(\S+)' width='(\S+)' height='(\S+)' rx", svg)]
    assert len(boxes) == 12 and all(x >= 0 and y >= 0 for x, y, _, _ in boxes)
    for i, (x, y, w, h) in enumerate(boxes):
        assert all(x + w < x2 or x2 + w2 < x or y + h < y2 or y2 + h2 < y for x2, y2, w2, h2 in boxes[:i])
    for edge in diagram.edges:
        assert boxes[edge.start][1] + boxes[edge.start][3] < boxes[edge.end][1]
    diagram.connect(names[-1], names[0])  # no graph has a circle, but a file may tell of one
    assert draw(diagram, "graph").count("class='arrow'") == len(diagram.edges)
    assert draw(Diagram(), "nothing").count("<rect") == 0
