"""Files written long ago: by the original program (``original/``) and by ours (``ours/``).  They load, and predict what they did."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import keydnn
from keydnn.saving import registered_names

GOLDEN = Path(__file__).parents[1] / "golden"
ORIGINAL = sorted((GOLDEN / "original").glob("*.json"))
OURS = sorted((GOLDEN / "ours").glob("*.json"))


def types(node):
    return {node["type"]}.union(*(types(child) for child in node["children"].values()))


def load(path):
    missing = types(json.loads(path.read_text(encoding="utf-8"))["arch"]) - set(registered_names())
    if missing:
        pytest.skip(f"needs layers that do not exist yet: {', '.join(sorted(missing))}")
    return keydnn.Sequential.load_json(path), np.load(path.with_suffix(".npz"))


def test_the_files_are_there():
    assert [path.stem for path in ORIGINAL] == ["batchnorm1d", "bidirectional_gru", "dense_lazy", "named_layers"]
    assert len(OURS) >= 3


@pytest.mark.parametrize("path", ORIGINAL, ids=lambda path: path.stem)
def test_a_file_of_the_original_predicts_what_it_did_there(path):
    model, arrays = load(path)
    np.testing.assert_allclose(model.predict(keydnn.tensor(arrays["x"])).to_numpy(), arrays["y_loaded_0"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", ORIGINAL, ids=lambda path: path.stem)
def test_writing_it_again_gives_the_same_bytes_but_for_the_running_statistics(path, tmp_path):
    model, _ = load(path)
    model.save_json(tmp_path / "again.json")
    written, original = json.loads((tmp_path / "again.json").read_text()), json.loads(path.read_text())
    for name in [name for name in written["state"] if name.rpartition(".")[2] in ("running_mean", "running_var")]:
        del written["state"][name]
    assert json.dumps(written, indent=2, sort_keys=True) == path.read_text(encoding="utf-8")
    assert written == original


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_a_file_of_ours_predicts_what_it_did(path, tmp_path):
    model, arrays = load(path)
    for name, x in arrays.items():
        if name.startswith("x"):
            expected = arrays["y" + name[1:]]
            np.testing.assert_allclose(model.predict(keydnn.tensor(x)).to_numpy(), expected, rtol=1e-5, atol=1e-6)
    model.save_json(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_training_state_of_ours_predicts_what_it_did_and_goes_on():
    arrays = np.load(GOLDEN / "ours" / "run.npz")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the run was computed by")  # on another machine
        model = keydnn.Sequential.load(GOLDEN / "ours" / "run.safetensors")
        np.testing.assert_allclose(model.predict(arrays["x"]).to_numpy(), arrays["y"], rtol=1e-5, atol=1e-6)
        run = model.last_run
        assert (run.epoch, run.optimizer.lr, len(run.history.history["loss"])) == (3, 0.01, 3)
        history = model.fit(
            arrays["x"],
            arrays["labels"],
            loss="cross_entropy",
            optimizer=run.optimizer,
            batch_size=8,
            epochs=4,
            verbose=0,
            resume=GOLDEN / "ours" / "run.safetensors",
        )
    assert history.epoch == [0, 1, 2, 3]
