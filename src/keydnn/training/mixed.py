"""Mixed precision: parameters in one floating dtype, most of the computing in another.

    y = float64(model(float32(x); float32(w)))        gradients come back to w in float64, where the optimizer adds them up

float32 moves half the bytes and twice the elements per instruction; float64 keeps updates that are too small beside their
parameter for float32 (below about 6e-8 of it).  Exponents of float32 reach down to 1e-38, so gradients need no scaling, unlike
with 16-bit floats.  Layers that normalise keep the dtype of their parameters, as their means and variances are sums of many terms.
Idea: Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from keydnn._tensor import Tensor
from keydnn.nn.arguments import floating_dtype
from keydnn.nn.layers.norm import Normalization
from keydnn.nn.module import Module
from keydnn.saving.registry import register_module
from keydnn.training.model import Model
from keydnn.training.sequential import Sequential


@register_module()
class MixedPrecision(Model):
    """A model that computes in another floating dtype than that of its parameters.

    Losses, gradients of parameters, updates, running statistics and what comes out have the dtype of the parameters; between input
    and output all layers but those that normalise compute in ``compute``.

    Args:
        model: Any module; its parameters are float64 to make sense, see :meth:`keydnn.Module.astype`.
        compute: float32 or float64.

    Attributes:
        inner: The module.
        compute: The dtype.

    Raises:
        TypeError: ``model`` is no Module, or ``compute`` no floating dtype.

    Example:
        >>> from keydnn.models import MixedPrecision
        >>> layers = keydnn.Sequential(keydnn.Linear(3, 8), keydnn.ReLU(), keydnn.Linear(8, 1)).astype("float64")
        >>> model = MixedPrecision(layers)
        >>> history = model.fit(np.eye(3), np.ones((3, 1)), loss="mse", optimizer="adam", epochs=2, verbose=0)
        >>> model.predict(np.eye(3)).dtype, next(layers.parameters()).dtype
        (dtype('float64'), dtype('float64'))
    """

    def __init__(self, model: Module, compute: Any = "float32") -> None:
        super().__init__()
        if not isinstance(model, Module):
            raise TypeError(f"MixedPrecision: expected a Module, got {type(model).__name__}")
        self.compute = floating_dtype(compute, self)
        self.inner = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives, in the dtype of its parameters."""
        own = self._dtype()
        with _computing(self.inner, self.compute):
            y = self.inner(*(_cast(a, self.compute) for a in args), **{name: _cast(a, self.compute) for name, a in kwargs.items()})
        return _cast(y, own)

    def get_config(self) -> dict[str, Any]:
        """``compute``."""
        return {"compute": self.compute.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MixedPrecision:
        """One around an empty model, which the loader replaces."""
        return cls(Sequential(), config.get("compute", "float32"))


def _cast(value: Any, dtype: Any) -> Any:
    """Floating tensors, also those in tuples, in ``dtype``; all else as it is."""
    if isinstance(value, Tensor):
        return value.astype(dtype) if value.dtype.kind == "f" else value
    return tuple(_cast(v, dtype) for v in value) if isinstance(value, tuple) else value


@contextlib.contextmanager
def _computing(model: Module, dtype: Any) -> Iterator[None]:
    """Inside, the attributes of ``model`` and all below stand for their parameters in ``dtype``; registries are left alone."""
    casts: dict[int, Tensor] = {}
    before: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for module in model.modules():
            own = module.__dict__
            if isinstance(module, Normalization):
                before.append((own, "forward", own.get("forward")))
                own["forward"] = _in_own_dtype(module, module.forward, dtype)
                continue
            for name, parameter in module._parameters.items():
                if parameter.dtype != dtype:
                    before.append((own, name, parameter))
                    if id(parameter) not in casts:
                        casts[id(parameter)] = parameter.astype(dtype)
                    own[name] = casts[id(parameter)]
        yield
    finally:
        for own, name, value in reversed(before):
            if value is None:
                del own[name]
            else:
                own[name] = value


def _in_own_dtype(module: Normalization, forward: Any, dtype: Any) -> Any:
    """``forward`` with its input in the layer's dtype and its output in ``dtype``."""
    return lambda x, *rest: _cast(forward(_cast(x, module.dtype), *rest), dtype)
