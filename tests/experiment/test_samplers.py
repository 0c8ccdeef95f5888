"""Samplers: every row from the view, pairs that meet their conditions, results that do not depend on workers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet
from keydnn.experiment.samplers import BaseSampler, NSampler, PairedSampler, SimilarityCondition, SimpleSampler, TripletSampler

KINDS = st.sampled_from(["number", "class"])


def make(n, kind, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 8, n).astype(float) if kind == "number" else [f"c{i}" for i in rng.integers(0, 4, n)]
    return FeatureSet.from_dict("fs", {"x": np.arange(n), "v": values, "w": rng.random(n)}, "x", [], ["v", "w"])


def definition(fs, rows, conditions):
    """(anchor, candidate) -> (rank, weight), by loops over the definition."""
    columns = {name: fs.values(f"tags.{name}.raw") for name in conditions}
    table = {}
    for a in rows:
        for b in rows:
            if a == b:
                continue
            matches, scores, excluded = [], [], False
            for name, c in conditions.items():
                x, y = columns[name][a], columns[name][b]
                d = abs(x - y) if isinstance(x, float) else (0.0 if x == y else math.inf)
                match = d <= c.tolerance if c.mode == "similar" else d > c.tolerance
                excluded |= not match and not c.allow_fallback
                matches.append(match)
                scores.append(c.score(x, y))
            if not excluded:
                table[a, b] = (0 if all(matches) else 1 if any(matches) else 2, float(np.mean(scores)))
    return table


@pytest.mark.slow
@given(
    n=st.integers(4, 40), kind=KINDS, seed=st.integers(0, 10**6), mode=st.sampled_from(["similar", "dissimilar"]), fallback=st.booleans(),
    second=st.sampled_from([None, "similar", "dissimilar"]), limit=st.sampled_from([1, 2, 3, None]), best=st.booleans(),
    tolerance=st.sampled_from([0.0, 1.0, 2.0]),
)  # fmt: skip
def test_pairs_follow_the_definition(n, kind, seed, mode, fallback, second, limit, best, tolerance):
    with ExperimentContext(registration_policy="no_register").activate():
        fs = make(n, kind, seed)
        view = fs.take(np.random.default_rng(seed).permutation(n)[: max(3, n - 2)])
        first = SimilarityCondition(mode, tolerance, weight_mode="linear", max_weight=5, min_weight=0.1, allow_fallback=fallback)
        conditions = {"v": first} | ({"w": SimilarityCondition(second, 0.3, allow_fallback=not fallback)} if second else {})
        table = definition(fs, view.indices.tolist(), conditions)
        want = {a: [(rank, -weight) for (x, _), (rank, weight) in table.items() if x == a] for a, _ in table}
        sampler = PairedSampler(conditions, max_pairs_per_anchor=limit, choose_best_only=best, batch_size=10**6, seed=seed, source=view)
        if not table:
            with pytest.raises(ValueError, match="no sample"):
                sampler.materialize_batches()
            return
        (batch,) = sampler.get_batches()
        anchors, pairs = batch.role_indices["anchor"].tolist(), batch.role_indices["pair"].tolist()
        got = {}
        for a, b, weight in zip(anchors, pairs, batch.role_indice_weights["pair"], strict=True):
            rank, expected = table[a, b]
            assert weight == pytest.approx(expected)
            got.setdefault(a, []).append((rank, -expected, b))
        assert set(got) == set(want)
        for a, found in got.items():
            assert len({b for *_, b in found}) == len(found) == min(len(want[a]), limit or n)
            ranks = sorted(rank for rank, _ in want[a])[: len(found)]
            assert [rank for rank, *_ in found] == ranks
            if best:
                assert [weight for _, weight, _ in found] == pytest.approx([weight for _, weight in sorted(want[a])[: len(found)]])


def test_anchors_with_large_pools_are_served_by_drawing():
    fs = FeatureSet.from_dict("many", {"v": np.random.default_rng(0).random(3000)}, "v", [])
    sampler = PairedSampler({"v": SimilarityCondition(tolerance=0.1)}, seed=4, batch_size=10**6, source=fs)
    (batch,) = sampler.get_batches()
    a, b = batch.role_indices["anchor"], batch.role_indices["pair"]
    values = fs.values("features.v.raw")
    assert np.bincount(a, minlength=3000).tolist() == [3] * 3000
    assert (np.abs(values[a] - values[b]) <= 0.1).all() and (a != b).all()
    assert len(np.unique(a * 3000 + b)) == len(a)
    rank = np.argsort(np.argsort(values))
    offsets = (values[b] - values[a])[(values[a] > 0.1) & (values[a] < 0.9)]
    assert abs(offsets.mean()) < 0.002 and 0.055 < offsets.std() < 0.0605  # uniform in +-0.1: std 0.0577, 7000 draws
    assert rank.shape == (3000,)


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 2000])
def test_workers_do_not_change_the_result(n):
    fs = make(n, "number", 1)
    conditions = {"v": SimilarityCondition(tolerance=1), "w": SimilarityCondition("dissimilar", 0.2, allow_fallback=True)}
    one, four = (TripletSampler(conditions, {"w": SimilarityCondition("dissimilar", 0.5)}, seed=3, n_workers=k, source=fs) for k in (1, 4))
    assert [b.role_indices["negative"].tolist() for b in one.get_batches()] == [
        b.role_indices["negative"].tolist() for b in four.get_batches()
    ]
    assert one.role_names == ["anchor", "positive", "negative"]


def test_a_metric_decides_what_matches():
    fs = FeatureSet.from_dict("angles", {"v": [1.0, 359.0, 180.0]}, "v", [])

    def around(a, b):
        return min(abs(a - b), 360 - abs(a - b))

    sampler = PairedSampler({"v": SimilarityCondition(tolerance=5, metric=around)}, batch_size=9, source=fs)
    (batch,) = sampler.get_batches()
    assert batch.role_indices["anchor"].tolist() == [0, 1] and batch.role_indices["pair"].tolist() == [1, 0]
    with pytest.raises(ValueError, match="pickled"):
        PairedSampler({"v": SimilarityCondition(metric=around)}, n_workers=2)


@pytest.mark.parametrize(("pairing", "rows"), [("cycle", 9), ("zip", 3)])
def test_roles_with_fewer_partners(pairing, rows):
    fs = FeatureSet.from_dict("t", {"v": [0.0, 0.0, 1.0, 1.0, 1.0]}, "v", [])
    sampler = NSampler(
        {"near": {"v": SimilarityCondition()}, "far": {"v": SimilarityCondition("dissimilar")}},
        max_samples_per_anchor=None, pairing=pairing, batch_size=99, source=fs.take([0, 1, 2, 3, 4]),
    )  # fmt: skip
    (batch,) = sampler.get_batches()
    of_0 = batch.role_indices["anchor"] == 0
    assert batch.role_indices["near"][of_0].tolist() == [1] * (3 if pairing == "cycle" else 1)
    assert len(batch) == {"cycle": 6 + 6, "zip": 2 + 6}[pairing] and rows


@given(
    n=st.integers(1, 60), batch_size=st.integers(1, 9), shuffle=st.booleans(), drop_last=st.booleans(), seed=st.integers(0, 99),
    by=st.sampled_from([None, "group_by", "stratify_by"]), strict=st.booleans(),
)  # fmt: skip
def test_rows_come_from_the_view_once(n, batch_size, shuffle, drop_last, seed, by, strict):
    with ExperimentContext(registration_policy="no_register").activate():
        fs = FeatureSet.from_dict("fs", {"x": np.arange(2 * n), "g": np.arange(2 * n) % 3}, "x", [], "g")
        view = fs.take(np.random.default_rng(seed).permutation(2 * n)[:n])
        options = {by: "g", "strict_stratification": strict} if by else {}
        sampler = SimpleSampler(batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, seed=seed, source=view, **options)
        tags = fs.values("tags.g.raw")
        if by == "stratify_by" and len(set(tags[view.indices])) > batch_size:
            with pytest.raises(ValueError, match="do not fit"):
                sampler.materialize_batches()
            return
        parts = [batch.role_indices["default"] for batch in sampler.get_batches()]
        rows = np.concatenate(parts) if parts else np.empty(0, int)
        assert len(set(rows)) == len(rows) and set(rows) <= set(view.indices)
        if not drop_last and (by != "stratify_by" or not strict):
            assert set(rows) == set(view.indices)
        assert all(len(part) == batch_size or (not drop_last and len(part) < batch_size) for part in parts)
        if by == "group_by":
            assert all(len(set(tags[part])) == 1 for part in parts)


def test_reshuffling_keeps_the_samples(ten):
    sampler = PairedSampler({"b": SimilarityCondition(tolerance=2)}, batch_size=4, seed=1, source=ten)

    def drawn():
        return [tuple(map(tuple, batch.role_indices.values())) for batch in sampler.get_batches()]

    def pairs():
        return sorted(pair for anchors, partners in drawn() for pair in zip(anchors, partners, strict=True))

    before = pairs()
    sampler.reshuffle(1)
    first = drawn()
    sampler.reshuffle(2)
    assert drawn() != first and pairs() == before
    sampler.reshuffle(1)
    assert drawn() == first


@pytest.mark.parametrize(
    "make_sampler",
    [
        lambda: SimpleSampler(batch_size=3, shuffle=True),
        lambda: PairedSampler({"b": SimilarityCondition(tolerance=1, weight_mode="exp", allow_fallback=True)}, batch_size=4),
        lambda: TripletSampler({"b": SimilarityCondition(tolerance=1)}, {"b": SimilarityCondition("dissimilar", 1)}),
    ],
)
def test_config_state_and_file(make_sampler, ten, tmp_path):
    sampler = make_sampler()
    assert BaseSampler.from_config(sampler.get_config()) == sampler
    sampler.bind_sources(ten.take([1, 2, 3, 4, 8], "five"))
    assert not sampler.is_materialized
    sampler.materialize_batches()
    sampler.save(tmp_path / "draw")
    again = type(sampler).load(tmp_path / "draw")
    assert again == sampler and again.is_materialized_for(ten.take([1, 2, 3, 4, 8]))
    assert [b == c for b, c in zip(again.get_batches(), sampler.get_batches(), strict=True)] and not again.is_materialized_for(ten)
    other = make_sampler()
    other.set_state(sampler.get_state())
    assert [x == y for x, y in zip(other, sampler, strict=True)]


def test_a_sampler_of_ones_own_cannot_leave_the_set(ten):
    from keydnn.experiment.samplers import Samples

    class Beyond(BaseSampler):
        def build_samples(self):
            return {("default", "ten"): Samples({"default": np.array([1, 10])})}

    with pytest.raises(IndexError, match="10 is outside"):
        Beyond(sources=ten).materialize_batches()
