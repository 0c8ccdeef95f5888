"""Operands of different dtypes: brought to the promoted one, so that each gradient returns in its tensor's own dtype."""

from __future__ import annotations

import numpy as np


def promoted(name, *tensors):
    """The tensors in their common floating dtype; None stays None.

    Raises:
        TypeError: A tensor holds integers or booleans.
    """
    for t in tensors:
        if t is not None and t.dtype.kind != "f":
            raise TypeError(f"{name}: expected floating tensors, got dtype {t.dtype}; cast with astype('float32')")
    common = np.result_type(*(t.dtype for t in tensors if t is not None))
    return tuple(None if t is None else t.astype(common) for t in tensors)
