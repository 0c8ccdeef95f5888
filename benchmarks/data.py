"""Data of the experiment wing beside the same work in plain pandas, NumPy, pyarrow and scikit-learn."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Result, contest, readable
from benchmarks.remote import Session, seconds_per_call

ROWS, COLUMNS, FRAME_ROWS, GROUPS = 100_000, 20, 20_000, 1_000
NAMES = [f"x{i}" for i in range(COLUMNS)]
BATCH_ROWS, BATCH, N_BATCHES = 2_000_000, 256, 200
BUDGET_S = 0.3


@dataclass(frozen=True)
class Row:
    """One line of the table: what we do, what plain libraries do, and how many times longer ours may take."""

    name: str
    ours: Callable[[], Any]
    plain: Callable[[], Any]
    limit: float | None
    rtol: float = 0.0

    def __str__(self) -> str:
        return self.name


class Here:
    """A contestant in this process: both sides share data and libraries."""

    def __init__(self, name: str, call: Callable[[], Any]) -> None:
        self.name, self._session = name, Session(call)

    def prepare(self, row: Row) -> Any:
        """The answer, for the comparison."""
        return self._session.call()

    def time(self, budget_s: float) -> float:
        """Seconds per call."""
        return seconds_per_call(self._session, budget_s)


def run(rounds: int = 9) -> list[Result]:
    """Check and time every row."""
    from keydnn.experiment.context import ExperimentContext

    folder = Path(tempfile.mkdtemp(prefix="keydnn-bench-"))
    results = []
    print(f"{'case':44} {'ours':>10} {'plain':>10} {'ratio':>7} {'limit':>6}")
    try:
        with ExperimentContext(registration_policy="overwrite").activate():
            for row in (*_construction(), *_splits(), *_scaling(), *_lookups(), *_files(folder), *_batches()):
                contestants = [Here("plain", row.plain), Here("ours", row.ours)]
                result = contest(row, contestants, rounds=rounds, budget_s=BUDGET_S, rtol=row.rtol)
                if result.notes:
                    raise RuntimeError(f"{row.name}: {result.notes}")
                ratio = result.ratio("plain", "ours")
                limit = "" if row.limit is None else f"{row.limit:g}"
                times = (readable(result.median("ours")), readable(result.median("plain")))
                print(f"{row.name:44} {times[0]:>10} {times[1]:>10} {ratio:7.2f} {limit:>6}", flush=True)
                results.append(result)
    finally:
        shutil.rmtree(folder)
    return results


def _data(rows: int = ROWS, dtype: str = "float64") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random(rows).astype(dtype) for name in [*NAMES, "y"]}


def _feature_set(**extra: Any) -> Any:
    from keydnn.experiment.data import FeatureSet

    return FeatureSet.from_dict("bench", {**_data(), **extra}, NAMES, "y", list(extra))


def _construction() -> list[Row]:
    import pandas as pd
    import pyarrow as pa

    from keydnn.experiment.data import FeatureSet

    data = _data()
    frame = pd.DataFrame({name: values[:FRAME_ROWS] for name, values in data.items()})
    frame["g"] = np.random.default_rng(1).permutation(np.repeat(np.arange(GROUPS), FRAME_ROWS // GROUPS))

    def table_values(table: Any) -> Any:
        return float(table.column(0)[-1].as_py())

    def set_values(fs: Any) -> Any:
        return float(fs.collection.columns_table["features.x0.raw"][-1].as_py())

    def grouped_plain() -> Any:
        return np.stack(frame.groupby("g", sort=False).agg(list)["x3"].to_list())[-1]

    def grouped_ours() -> Any:
        return FeatureSet.from_pandas("bench", frame, NAMES, "y", group_by="g").values("features.x3.raw")[-1]

    return [
        Row(
            f"from_dict, {ROWS} x {COLUMNS} / pa.table",
            lambda: set_values(FeatureSet.from_dict("bench", data, NAMES, "y")),
            lambda: table_values(pa.table(data)),
            2,
        ),
        Row(
            f"from_pandas, {FRAME_ROWS} x {COLUMNS} / Table.from_pandas",
            lambda: set_values(FeatureSet.from_pandas("bench", frame, NAMES, "y")),
            lambda: table_values(pa.Table.from_pandas(frame)),
            3,
        ),
        Row(f"from_pandas, {GROUPS} groups / groupby.agg(list)", grouped_ours, grouped_plain, 2),
    ]


def _splits() -> list[Row]:
    group = np.random.default_rng(2).integers(0, 1000, ROWS)
    fs = _feature_set(g=group, s=group % 5)
    ratios = {"train": 0.7, "val": 0.2, "test": 0.1}

    def split(**by: Any) -> np.ndarray:
        fs.clear_splits()
        fs.split_random(ratios, **by)
        return fs["test"].indices

    def permuted() -> np.ndarray:
        return np.random.default_rng(13).permutation(ROWS)[-ROWS // 10 :]

    def strata() -> np.ndarray:
        rng, parts = np.random.default_rng(13), []
        for value in dict.fromkeys(fs.values("tags.s.raw").tolist()):
            rows = np.flatnonzero(group % 5 == value)
            rng.shuffle(rows)
            sizes = np.floor(np.array([0.7, 0.2, 0.1]) * len(rows)).astype(int)
            exact = np.array([0.7, 0.2, 0.1]) * len(rows)
            for i in np.argsort(sizes - exact, kind="stable")[: len(rows) - sizes.sum()]:
                sizes[i] += 1
            parts.append(rows[sizes[0] + sizes[1] :])
        return np.concatenate(parts)

    def grouped() -> np.ndarray:
        import pandas as pd

        codes, _ = pd.factorize(group)
        order = np.arange(1000)
        np.random.default_rng(13).shuffle(order)
        return np.concatenate([np.flatnonzero(codes == g) for g in order[900:]])

    return [
        Row(f"random split, {ROWS} / permutation", split, permuted, 2),
        Row(f"stratified split, {ROWS} / by hand", lambda: split(stratify_by="s"), strata, None),
        Row(f"grouped split, {ROWS} / by hand", lambda: split(group_by="g"), grouped, None),
    ]


def _scaling() -> list[Row]:
    from sklearn.preprocessing import StandardScaler

    fs = _feature_set()
    matrix = fs.get_features("np")

    def ours() -> np.ndarray:
        fs.fit_transform("StandardScaler", domain="features")
        out = fs.get_features("np", rep="transformed")[-1]
        fs.undo_last_transform("features")
        return out

    def plain() -> np.ndarray:
        columns = [matrix[:, i].copy() for i in range(COLUMNS)]
        return StandardScaler().fit_transform(np.stack(columns, axis=1))[-1]

    return [Row("StandardScaler and undo / scikit-learn", ours, plain, None, 1e-12)]


def _lookups() -> list[Row]:
    import pandas as pd

    from keydnn.experiment.data import FeatureSet
    from keydnn.experiment.samplers import PairedSampler, SimilarityCondition

    fs = _feature_set()
    ids = fs.get_sample_uuids()
    rows = np.sort(np.random.default_rng(3).permutation(ROWS)[:1000])
    wanted = ids[rows].tolist()
    values = np.random.default_rng(4).random(2000)
    pairs = FeatureSet.from_dict("pairs", {"v": values}, "v", [])

    def all_pairs() -> int:
        near = np.abs(values[:, None] - values[None, :]) <= 0.05
        np.fill_diagonal(near, False)
        rng = np.random.default_rng(0)
        return sum(len(rng.permutation(np.flatnonzero(line))[:3]) for line in near)

    def sampled() -> int:
        sampler = PairedSampler({"v": SimilarityCondition(tolerance=0.05)}, batch_size=256, seed=1, source=pairs)
        return sum(map(len, sampler.get_batches()))

    return [
        Row(f"take 1000 uuids of {ROWS} / pandas index", lambda: fs.take_sample_uuids(wanted).indices, _index_of(pd, ids, wanted), None),
        Row("pairs of 2000 anchors / NumPy matrix", sampled, all_pairs, None),
    ]


def _index_of(pd: Any, ids: np.ndarray, wanted: list[str]) -> Callable[[], Any]:
    return lambda: np.sort(pd.Index(ids).get_indexer(wanted))


def _files(folder: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.ipc

    from keydnn.experiment.data import FeatureSet

    fs = _feature_set()
    fs.split_random({"train": 0.7, "test": 0.3})
    fs.fit_transform("StandardScaler", domain="features", fit_to_split="train")
    table = fs.collection.columns_table

    def write() -> int:
        with pa.OSFile(str(folder / "plain.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return len(table)

    def read() -> int:
        return pa.ipc.open_file(pa.BufferReader((folder / "plain.arrow").read_bytes())).read_all().num_rows

    def snapshot() -> int:
        fs.set_state(fs.get_state())
        return len(fs)

    def save() -> int:
        fs.save(folder / "ours", overwrite=True)
        return len(fs)

    return [
        Row("snapshot and restore / copy of the columns", snapshot, lambda: len([c.to_numpy().copy() for c in table.columns][0]), None),
        Row("save with splits and scaler / Arrow file", save, write, None),
        Row("load and check / Arrow file", lambda: len(FeatureSet.load(folder / "ours", overwrite=True)), read, None),
    ]


def _batches() -> list[Row]:
    from keydnn.experiment.data import FeatureSet
    from keydnn.experiment.samplers import SimpleSampler

    data = _data(BATCH_ROWS, "float32")
    fs = FeatureSet.from_dict("batches", data, NAMES, [])
    batches = SimpleSampler(batch_size=BATCH, shuffle=True, seed=0, source=fs).get_batches()[:N_BATCHES]
    rows = [batch.role_indices["default"] for batch in batches]
    columns = [data[name] for name in sorted(NAMES)]

    def ours() -> np.ndarray:
        return [batch.materialize_batch().features for batch in batches][-1]

    def plain() -> np.ndarray:
        return [np.stack([c.take(i) for c in columns], 1) for i in rows][-1]

    return [Row(f"{N_BATCHES} batches of {BATCH} x {COLUMNS} float32 / np.stack", ours, plain, round(1 / 0.7, 2))]
