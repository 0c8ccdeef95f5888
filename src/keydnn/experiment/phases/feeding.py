"""Feeding: what the steps of a phase read.

Bindings with equal samplers on the same rows share one run of the sampler: their batches hold the same rows in the same
order.  All batches of an input are made at once, from one array per domain of which every batch is a slice, or, lazily, those of some
steps at a time, by a thread shortly before the first of them; both give the same bits.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.bindings import InputBinding
from keydnn.experiment.data import Batch, BatchView, FeatureSetView
from keydnn.experiment.data.execution_context import InputKey
from keydnn.experiment.data.materialize import InputBatches
from keydnn.experiment.equality import same_values
from keydnn.experiment.graph import ModelGraph
from keydnn.experiment.graph.many import Rows
from keydnn.experiment.names import DOMAIN_SAMPLE_UUIDS
from keydnn.experiment.phases.schedule import BatchSchedulingPolicy, Places, schedule
from keydnn.experiment.progress import showing
from keydnn.experiment.samplers import BaseSampler, SimpleSampler

RESAMPLE = ("never", "epoch", "epoch_full")
PREFETCH = ("auto", "all", "lazy")
_WINDOW_BYTES = 8 << 20  # of the batches that are made together when they are made lazily
_AHEAD = 64  # steps whose batches are cut together, which is quicker than one by one between steps
_SHARE = 4  # of the free memory one part may be taken by batches

StepInput = tuple[dict[InputKey, Batch], dict[InputKey, BatchView]]


class Feed:
    """One run of a sampler, and the inputs that it feeds.

    Args:
        sampler: The sampler; it is bound to the rows and draws, unless it has.
        view: The rows.
        show_progress: Whether drawing that takes long shows how far it is.
    """

    def __init__(self, sampler: BaseSampler, view: FeatureSetView, show_progress: bool) -> None:
        self.sampler, self.view, self.bindings = sampler, view, list[InputBinding]()
        if not sampler.is_materialized_for(view):
            sampler.bind_sources(view.expand_columns(view.label))
        sampler.materialize_batches(show_progress=show_progress)

    def drawn(self, epoch: int, resample: str) -> BaseSampler:
        """The sampler as it drew for an epoch; the one that the user gave is left as it is."""
        if resample == "never":
            return self.sampler
        again = copy.copy(self.sampler)
        if resample == "epoch_full":
            again.seed = int(np.random.SeedSequence([self.sampler.seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
            again.bind_sources(self.sampler.sources)
            again.materialize_batches(show_progress=False)
            again.seed = self.sampler.seed
        again.reshuffle(epoch)
        return again


def feeds_of(bindings: Sequence[InputBinding], show_progress: bool) -> list[Feed]:
    """Runs of samplers for bindings; equal samplers on the same rows share one.

    Raises:
        ValueError: A sampler does not have the stream that a binding names.
    """
    feeds: list[Feed] = []
    for binding in bindings:
        view = binding.resolve_input_view()
        sampler = binding.sampler
        assert sampler is not None
        feed = next((one for one in feeds if _shares(one, sampler, view)), None)
        if feed is None:
            taken = any(one.sampler is sampler for one in feeds)  # by other rows
            feed = Feed(copy.copy(sampler) if taken else sampler, view, show_progress)
            feeds.append(feed)
        if binding.stream not in feed.sampler.stream_names:
            known = ", ".join(map(repr, feed.sampler.stream_names))
            raise ValueError(f"{type(sampler).__name__} has no stream {binding.stream!r}; it has {known}")
        feed.bindings.append(binding)
    return feeds


def _shares(feed: Feed, sampler: BaseSampler, view: FeatureSetView) -> bool:
    if feed.view.source is not view.source or not np.array_equal(feed.view.indices, view.indices):
        return False
    other = feed.sampler
    return other is sampler or (type(other) is type(sampler) and same_values(other.get_config(), sampler.get_config()))


class _Input:
    """One input of a node: how its batches become tensors.

    Attributes:
        key: Under which a step finds it.
        backend: Whose tensors the node reads.
    """

    def __init__(self, binding: InputBinding, graph: ModelGraph, accelerator: Accelerator | None) -> None:
        self.key: InputKey = (binding.node_id, binding.upstream_ref)
        self.stream = binding.stream
        self._node = graph.get_node(binding.node_id)
        self.backend = self._node.backend
        self._where = accelerator
        self.columns = [name for name in binding.upstream_ref.resolve().columns if name != DOMAIN_SAMPLE_UUIDS]

    def batches(self, views: Sequence[BatchView]) -> InputBatches:
        return InputBatches(views, self.columns, self.backend, self._where, lambda tensor: self._node.place_input(tensor, self._where))

    def bytes_of(self, views: Sequence[BatchView]) -> int:
        """About how much all batches take."""
        if not views:
            return 0
        collection = views[0].source.collection
        per_row = sum(4 * int(np.prod(collection.shape(name), dtype=np.int64)) for name in self.columns)
        return sum(map(len, views)) * len(views[0].roles) * per_row


class _Steps(Sequence[StepInput]):
    """The inputs of the steps of an epoch, made when they are asked for: the first by itself, later ones some at a time."""

    def __init__(self, n: int, make: Callable[[int], StepInput]) -> None:
        self._made: list[StepInput | None] = [None] * n
        self._make, self._ahead = make, 1

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, i: Any) -> Any:
        found = self._made[i]
        if found is not None:
            return found
        start = range(len(self._made))[i]
        for place in range(start, min(start + self._ahead, len(self._made))):
            if self._made[place] is None:
                self._made[place] = self._make(place)
        self._ahead = _AHEAD
        return self._made[start]


class _Window:
    """Batches of consecutive steps, made together.

    Args:
        first: The first step.
        inputs: What the steps read.
        views: By input the rows of each step.
        resting: By input the steps that show it fully masked.
    """

    def __init__(self, first: int, inputs: Sequence[_Input], views: Sequence[Sequence[BatchView]], resting: Sequence[set[int]]) -> None:
        self.first, self.end = first, first + len(views[0])
        self._inputs, self._views, self._resting = inputs, views, resting
        self._made = [one.batches(told) for one, told in zip(inputs, views, strict=True)]
        for made in self._made:
            made.make_all()

    def step(self, i: int) -> StepInput:
        """What step ``i`` of the epoch reads."""
        at = i - self.first
        batches = [made.masked(at) if i in rests else made.batch(at) for made, rests in zip(self._made, self._resting, strict=True)]
        keys = [one.key for one in self._inputs]
        return dict(zip(keys, batches, strict=True)), {key: views[at] for key, views in zip(keys, self._views, strict=True)}

    def block(self, first: int, last: int) -> Rows | None:
        """Rows of the steps from ``first`` to ``last`` (not included) as long as they are alike."""
        if any(first <= i < last for rests in self._resting for i in rests):
            return None
        return rows_of([(one.key, made, first - self.first) for one, made in zip(self._inputs, self._made, strict=True)], last - first)


class _LazySteps(Sequence[StepInput]):
    """The inputs of the steps of an epoch, made in windows; while one is used, a thread makes the next.

    Args:
        n: How many steps.
        size: How many steps of a window.
        make: A window, by its first step and where it ends.
    """

    def __init__(self, n: int, size: int, make: Callable[[int, int], _Window]) -> None:
        self._n, self._size, self._make = n, size, make
        self._pool = ThreadPoolExecutor(1, "keydnn-batches")  # whose thread ends with it
        self._window: _Window | None = None
        self._next: Future[_Window] | None = None

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < self._n:
            raise IndexError(f"step {i} of {self._n}")
        return self.window(i).step(i)

    def window(self, i: int) -> _Window:
        """The window of a step."""
        window = self._window
        if window is None or not window.first <= i < window.end:
            following = None if self._next is None else self._next.result()
            window = self._window = following if following is not None and following.first <= i < following.end else self._made(i)
            self._next = self._pool.submit(self._made, window.end) if window.end < self._n else None
        return window

    def _made(self, first: int) -> _Window:
        return self._make(first, min(self._n, first + self._size))


def rows_of(made: Sequence[tuple[InputKey, InputBatches, int]], n: int) -> Rows | None:
    """By input, role and domain the rows of at most ``n`` batches from one on, one under the other, as long as they are alike.

    Args:
        made: Key of an input, its batches and the first of them.
        n: How many batches at most.
    """
    n = min(batches.alike(first, first + n) - first for _, batches, first in made)
    if n < 1 or len({batches.length(first) for _, batches, first in made}) > 1:
        return None
    return {key: batches.rows(first, first + n) for key, batches, first in made}


class TrainFeeding:
    """What the steps of a training phase read.

    Args:
        phase: The TrainPhase.
        graph: Whose nodes read.
        show_progress: Whether drawing that takes long shows how far it is.
        accelerator: Where nodes stand that do not say themselves.

    Attributes:
        policy: The schedule.
        feeds: The runs of samplers.
        n_steps: Steps of an epoch.
        is_lazy: Whether batches are made shortly before their steps.

    Raises:
        RuntimeError: A sampler draws no batch.
    """

    def __init__(self, phase: Any, graph: ModelGraph, *, show_progress: bool = False, accelerator: Accelerator | None = None) -> None:
        self.policy: BatchSchedulingPolicy = phase.batch_schedule
        self._label, self._resample = phase.label, phase.resample
        bindings = phase.check_bindings(graph)
        self.feeds = feeds_of(bindings, show_progress)
        where = phase.accelerator if accelerator is None else accelerator
        self.inputs = [[_Input(binding, graph, where) for binding in feed.bindings] for feed in self.feeds]
        for feed in self.feeds:
            if feed.sampler.num_batches == 0:
                raise RuntimeError(
                    f"phase {self._label!r}: {type(feed.sampler).__name__} draws no batch from {feed.view.n_samples} rows of"
                    f" {feed.view.source.label!r}; is batch_size above that, with drop_last?"
                )
        self.is_lazy = phase.prefetch == "lazy" or (phase.prefetch == "auto" and self._is_large(where))
        self._lengths = [feed.sampler.num_batches for feed in self.feeds]
        self._schedule = schedule(self._lengths, self.policy)
        self.n_steps = len(self._schedule)
        self._kept: Sequence[StepInput] | None = None
        self._blocks: dict[tuple[int, int], Rows | None] = {}
        self._places: Sequence[Places] = ()
        self._batches: Sequence[Sequence[InputBatches]] = ()
        self._lazy: _LazySteps | None = None
        self._show = show_progress

    @property
    def n_samples(self) -> int:
        """About how many rows the steps of an epoch see."""
        first = self.feeds[0].sampler
        return sum(len(view) for view in first.get_batches()) * self.n_steps // first.num_batches

    def _is_large(self, where: Accelerator | None) -> bool:
        pairs = zip(self.feeds, self.inputs, strict=True)
        sizes = [one.bytes_of(feed.sampler.get_stream(one.stream)) for feed, inputs in pairs for one in inputs]
        mapped = any(feed.view.source.collection.is_mapped for feed in self.feeds)
        return mapped or sum(sizes) > free_bytes(where) // _SHARE

    def epoch(self, epoch: int) -> Sequence[StepInput]:
        """Inputs and rows of the steps of an epoch."""
        if self._kept is not None:
            return self._kept
        drawn = [feed.drawn(epoch, self._resample) for feed in self.feeds]
        views = [[sampler.get_stream(one.stream) for one in inputs] for sampler, inputs in zip(drawn, self.inputs, strict=True)]
        lengths = [sampler.num_batches for sampler in drawn]
        places = self._schedule if lengths == self._lengths else schedule(lengths, self.policy)
        if self.is_lazy:
            self._lazy = _LazySteps(len(places), self._steps_of_window(views, len(places)), functools.partial(self._window, places, views))
            return self._lazy
        with showing(self._show, "making batches"):
            batches = [[one.batches(told) for one, told in zip(*pair, strict=True)] for pair in zip(self.inputs, views, strict=True)]
            for row in batches:
                for made in row:
                    made.make_all()
        self._places, self._batches, self._blocks = places, batches, {}
        steps = _Steps(len(places), lambda i: self._step(places[i], views, batches))
        if self._resample == "never":
            self._kept = steps
        return steps

    def block(self, first: int, last: int) -> Rows | None:
        """Rows of the steps from ``first`` on of the epoch that was asked for last, as long as their batches are alike.

        Args:
            first: A step.
            last: Steps from here on are left out.

        Returns:
            By input, role and domain the rows of at least one step, one under the other; None if a sampler is inactive, or rows have
            weights or are padding.
        """
        if self._lazy is not None:
            window = self._lazy.window(first)
            return window.block(first, min(last, window.end))
        if (first, last) not in self._blocks:
            self._blocks[first, last] = self._block(first, last)
        return self._blocks[first, last]

    def _block(self, first: int, last: int) -> Rows | None:
        start = self._places[first]
        if any(at is None for at in start):
            return None
        places = np.array(self._places[first:last], np.int64)  # where one sampler is active, all are
        in_turn = (places == places[0] + np.arange(len(places))[:, None]).all(axis=1)
        n = len(places) if in_turn.all() else int(np.argmin(in_turn))
        told = zip(self.inputs, self._batches, start, strict=True)
        return rows_of([(one.key, made, at) for row, batches, at in told for one, made in zip(row, batches, strict=True)], n)  # type: ignore[misc]

    def _steps_of_window(self, views: Sequence[Any], n_steps: int) -> int:
        """How many steps of an epoch are made together when they are made lazily."""
        told = zip(self.inputs, views, strict=True)
        largest = [max(one.bytes_of([view]) for view in mine) for inputs, row in told for one, mine in zip(inputs, row, strict=True)]
        return max(2, min(n_steps, _WINDOW_BYTES // max(1, sum(largest))))

    def _window(self, places: Sequence[Places], views: Sequence[Any], first: int, last: int) -> _Window:
        chosen = [(i, one, told) for i, row in enumerate(self.inputs) for one, told in zip(row, views[i], strict=True)]
        rows = [[told[places[step][i] or 0] for step in range(first, last)] for i, _, told in chosen]
        resting = [{step for step in range(first, last) if places[step][i] is None} for i, _, _ in chosen]
        return _Window(first, [one for _, one, _ in chosen], rows, resting)

    def _step(self, place: Places, views: Sequence[Any], batches: Sequence[Sequence[InputBatches]]) -> StepInput:
        """One step; an inactive sampler shows its first batch, fully masked."""
        inputs: dict[InputKey, Batch] = {}
        rows: dict[InputKey, BatchView] = {}
        for i, chosen in enumerate(place):
            for one, told, made in zip(self.inputs[i], views[i], batches[i], strict=True):
                rows[one.key] = told[chosen or 0]
                inputs[one.key] = made.batch(chosen) if chosen is not None else made.masked()
        return inputs, rows


class PassFeeding:
    """What the steps of an evaluation or fitting phase read: rows in order, or the batches of samplers.

    Args:
        phase: The phase.
        graph: Whose nodes read.
        batch_size: Rows per step; None takes all.
        accelerator: Where nodes stand that do not say themselves.

    Raises:
        RuntimeError: There are no rows.
    """

    def __init__(self, phase: Any, graph: ModelGraph, batch_size: int | None, accelerator: Accelerator | None = None) -> None:
        where = phase.accelerator if accelerator is None else accelerator
        bindings: list[InputBinding] = phase.check_bindings(graph)
        self._inputs = [_Input(binding, graph, where) for binding in bindings]
        self._views: list[list[BatchView]] = []
        drawn = {id(b): feed for feed in feeds_of([b for b in bindings if b.sampler is not None], False) for b in feed.bindings}
        for binding in bindings:
            if binding.sampler is not None:
                self._views.append(drawn[id(binding)].sampler.get_stream(binding.stream))
                continue
            view = binding.resolve_input_view()
            rows = SimpleSampler(batch_size=batch_size or max(1, view.n_samples), source=view)
            self._views.append(rows.get_batches())
        self.n_steps = min(map(len, self._views))
        if self.n_steps == 0:
            raise RuntimeError(f"phase {phase.label!r} has no rows: feature set {bindings[0].upstream_ref.node_label!r} gives none")

    def steps(self) -> Iterator[StepInput]:
        """Inputs and rows of each step; a batch is made for its step."""
        batches = [one.batches(views) for one, views in zip(self._inputs, self._views, strict=True)]
        for i in range(self.n_steps):
            inputs = {one.key: made.batch(i) for one, made in zip(self._inputs, batches, strict=True)}
            yield inputs, {one.key: views[i] for one, views in zip(self._inputs, self._views, strict=True)}


def free_bytes(where: Accelerator | None) -> int:
    """Free memory of a device; of the host where nobody can say."""
    if where is not None and where.device != "cpu" and where.is_available() and where.device != "mps":
        from keydnn.experiment.optional import need

        return int(need("torch", "asking for free memory").cuda.mem_get_info(where.torch_device_str())[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # a system that does not tell
        return 4 << 30
