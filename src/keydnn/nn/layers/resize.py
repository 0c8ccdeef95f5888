"""Layers that change the size of the plane without learning or reducing anything, and Identity."""

from __future__ import annotations

from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import pair, positive_int, sizes
from keydnn.nn.layers.layer import Layer, Weightless, without_defaults
from keydnn.ops import pad
from keydnn.saving.registry import register_module


def _image(layer: Layer, x: Tensor) -> tuple[int, int, int, int]:
    if not isinstance(x, Tensor):
        raise TypeError(f"{type(layer).__name__}: expected a Tensor, got {type(x).__name__}")
    if x.ndim != 4:
        raise ShapeError(f"{type(layer).__name__}: expected x (N, C, H, W), got shape {x.shape}")
    return x.shape  # type: ignore[return-value]


@register_module()
class Identity(Weightless):
    """Gives back its input, the very object: a place for a layer that is not there.

    Args:
        dtype: float32 or float64, to which x is cast; None keeps its dtype.
    """

    def forward(self, x: Any) -> Any:
        """x."""
        return x


@register_module()
class ZeroPad2d(Weightless):
    """A border of zeros around each plane.

    Args:
        padding: Cells at the left, right, top and bottom, an int for all or four.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x (N, C, H, W) -> y (N, C, top + H + bottom, left + W + right).

    Raises:
        ValueError: A count below 0; x is not 4-D.

    Example:
        >>> from keydnn.nn import ZeroPad2d
        >>> ZeroPad2d((1, 2, 0, 0))(keydnn.ones((1, 3, 4, 4))).shape
        (1, 3, 4, 7)
    """

    def __init__(self, padding: int | tuple[int, int, int, int] | list[int], dtype: Any = None) -> None:
        super().__init__(dtype)
        self.padding = sizes("padding", padding, self, 4, 0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, top + H + bottom, left + W + right)."""
        _image(self, x)
        left, right, top, bottom = self.padding
        return pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))

    def get_config(self) -> dict[str, Any]:
        """``padding``, and ``dtype`` where one was chosen."""
        return {"padding": list(self.padding), **super().get_config()}


@register_module()
class Upsample(Weightless):
    """Planes with ``scale_factor`` times as many rows and columns.

    ``"nearest"`` repeats each element over a block.  ``"bilinear"`` weighs the two nearest elements along each axis: with n
    elements and m wanted, element i of the result stands at ``(i + 1/2) n / m - 1/2`` of the input, or with ``align_corners`` at
    ``i (n - 1) / (m - 1)``; what would stand beyond the border takes the border.

    Args:
        scale_factor: Rows and columns per element, an int or a pair.
        mode: ``"nearest"`` or ``"bilinear"``.
        align_corners: Bilinear: whether the outermost elements of input and result stand at the same place.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x (N, C, H, W) -> y (N, C, H * rows, W * columns).

    Raises:
        ValueError: A factor below 1; another mode; ``align_corners`` with ``"nearest"``; x is not 4-D, or its planes are empty.

    Example:
        >>> from keydnn.nn import Upsample
        >>> Upsample((1, 2), mode="bilinear")(keydnn.tensor([[[[0.0, 4.0]]]])).tolist()
        [[[[0.0, 1.0, 3.0, 4.0]]]]
    """

    def __init__(
        self, scale_factor: int | tuple[int, int] | list[int], mode: str = "nearest", align_corners: bool = False, dtype: Any = None
    ) -> None:
        super().__init__(dtype)
        self.scale_factor = pair("scale_factor", scale_factor, self, 1)
        if mode not in ("nearest", "bilinear"):
            raise ValueError(f"Upsample: mode must be 'nearest' or 'bilinear', got {mode!r}")
        if align_corners and mode == "nearest":
            raise ValueError("Upsample: align_corners belongs to mode 'bilinear'")
        self.mode, self.align_corners = mode, bool(align_corners)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H * rows, W * columns)."""
        n, c, h, w = _image(self, x)
        rows, columns = self.scale_factor
        if self.mode == "nearest":
            return x.reshape((n, c, h, 1, w, 1)).broadcast_to((n, c, h, rows, w, columns)).reshape((n, c, h * rows, w * columns))
        if 0 in (h, w):
            raise ShapeError(f"Upsample: expected planes with elements, got shape {x.shape}")
        down, right = (_interpolation(size, size * k, self.align_corners, x) for size, k in ((h, rows), (w, columns)))
        return down.matmul(x.reshape((n * c, h, w))).matmul(right.T).reshape((n, c, h * rows, w * columns))

    def get_config(self) -> dict[str, Any]:
        """``scale_factor``; ``mode``, ``align_corners`` and ``dtype`` where they differ from their defaults."""
        config = {"scale_factor": list(self.scale_factor), "mode": self.mode, "align_corners": self.align_corners}
        return without_defaults(config, {"mode": "nearest", "align_corners": False}) | super().get_config()


def _interpolation(n: int, m: int, align_corners: bool, like: Tensor) -> Tensor:
    """(m, n): row i holds the weights of the n elements in element i of the result, ``max(0, 1 - |place - element|)``."""
    i, element = (Tensor.ones(shape, device=like.device, dtype=like.dtype).cumsum(axis) - 1.0 for axis, shape in ((0, (m, 1)), (1, (1, n))))
    place = i * ((n - 1) / max(m - 1, 1)) if align_corners else ((i + 0.5) * (n / m) - 0.5).clamp(min=0.0, max=n - 1.0)
    return (1.0 - (place - element).abs()).relu()


@register_module()
class PixelShuffle(Weightless):
    """Channels rearranged into blocks: ``y[n, c, h r + i, w r + j] = x[n, c r r + i r + j, h, w]``.

    Args:
        upscale_factor: Rows and columns r of a block.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x (N, C * r * r, H, W) -> y (N, C, H * r, W * r).

    Raises:
        ValueError: A factor below 1; x is not 4-D, or its channels do not divide by ``r * r``.

    Source: Shi et al. 2016, https://arxiv.org/abs/1609.05158
    """

    def __init__(self, upscale_factor: int, dtype: Any = None) -> None:
        super().__init__(dtype)
        self.upscale_factor = positive_int("upscale_factor", upscale_factor, self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C * r * r, H, W) -> (N, C, H * r, W * r)."""
        n, c, h, w = _image(self, x)
        r = self.upscale_factor
        if c % (r * r):
            raise ShapeError(f"PixelShuffle: the channels must divide by {r * r}, got x of shape {x.shape}")
        y = x.reshape((n, c // (r * r), r, r, h, w)).transpose((0, 1, 4, 2, 5, 3))
        return y.reshape((n, c // (r * r), h * r, w * r))

    def get_config(self) -> dict[str, Any]:
        """``upscale_factor``, and ``dtype`` where one was chosen."""
        return {"upscale_factor": self.upscale_factor, **super().get_config()}
