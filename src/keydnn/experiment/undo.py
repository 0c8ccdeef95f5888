"""All or nothing: a block that fails leaves a thing as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from keydnn.experiment.contracts import IStateful


@contextlib.contextmanager
def unless_done(thing: IStateful) -> Iterator[None]:
    """If the block fails, the state of a thing is put back.

    Example:
        >>> import contextlib
        >>> from keydnn.experiment import ExperimentContext, FeatureSet
        >>> from keydnn.experiment.undo import unless_done
        >>> ctx = ExperimentContext()
        >>> with contextlib.suppress(KeyError), unless_done(ctx), ctx.activate():
        ...     fs = FeatureSet.from_dict("gone", {"x": np.arange(3.0)}, "x", [])
        ...     raise KeyError
        >>> ctx.available_nodes
        {}
    """
    before = thing.get_state()
    with contextlib.ExitStack() as undo:
        undo.callback(thing.set_state, before)
        yield
        undo.pop_all()
