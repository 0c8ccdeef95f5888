"""Layers that change the size of the plane without learning anything, and Identity."""

from __future__ import annotations

from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import pair, positive_int
from keydnn.nn.layers.layer import Layer, StatelessConfigMixin
from keydnn.ops import avgpool2d, stack
from keydnn.saving.registry import register_module


def _image(layer: Layer, x: Tensor) -> tuple[int, int, int, int]:
    if not isinstance(x, Tensor):
        raise TypeError(f"{type(layer).__name__}: expected a Tensor, got {type(x).__name__}")
    if x.ndim != 4:
        raise ShapeError(f"{type(layer).__name__}: expected x (N, C, H, W), got shape {x.shape}")
    return x.shape  # type: ignore[return-value]


@register_module()
class Identity(StatelessConfigMixin, Layer):
    """Gives back its input, the very object: a place for a layer that is not there."""

    def forward(self, x: Any) -> Any:
        """x."""
        return x


@register_module()
class AdaptiveAvgPool2d(Layer):
    """Means over windows that divide the plane into ``output_size`` rows and columns as evenly as possible.

    Window i of n over H rows runs from ``floor(i H / n)`` to ``ceil((i + 1) H / n)``.

    Args:
        output_size: Rows and columns of the result, an int or a pair.

    Shapes: x (N, C, H, W) -> y ``(N, C, *output_size)``.

    Raises:
        ValueError: A size out of range; x is not 4-D or its planes are empty.
    """

    def __init__(self, output_size: int | tuple[int, int] | list[int]) -> None:
        super().__init__()
        self.output_size = pair("output_size", output_size, self, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> ``(N, C, *output_size)``."""
        _, _, h, w = _image(self, x)
        rows, columns = self.output_size
        if 0 in (h, w):
            raise ShapeError(f"AdaptiveAvgPool2d: expected planes with elements, got shape {x.shape}")
        if h % rows == 0 and w % columns == 0:
            return avgpool2d(x, (h // rows, w // columns))
        y = stack([x[:, :, i * h // rows : -(-(i + 1) * h // rows)].mean(2) for i in range(rows)], 2)
        return stack([y[:, :, :, j * w // columns : -(-(j + 1) * w // columns)].mean(3) for j in range(columns)], 3)

    def get_config(self) -> dict[str, Any]:
        """``output_size``."""
        return {"output_size": list(self.output_size)}


@register_module()
class Upsample(Layer):
    """Each element repeated over a block of ``scale_factor`` rows and columns (nearest neighbour).

    Args:
        scale_factor: Rows and columns per element, an int or a pair.

    Shapes: x (N, C, H, W) -> y (N, C, H * rows, W * columns).

    Raises:
        ValueError: A factor below 1; x is not 4-D.
    """

    def __init__(self, scale_factor: int | tuple[int, int] | list[int]) -> None:
        super().__init__()
        self.scale_factor = pair("scale_factor", scale_factor, self, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H * rows, W * columns)."""
        n, c, h, w = _image(self, x)
        rows, columns = self.scale_factor
        return x.reshape((n, c, h, 1, w, 1)).broadcast_to((n, c, h, rows, w, columns)).reshape((n, c, h * rows, w * columns))

    def get_config(self) -> dict[str, Any]:
        """``scale_factor``."""
        return {"scale_factor": list(self.scale_factor)}


@register_module()
class PixelShuffle(Layer):
    """Channels rearranged into blocks: ``y[n, c, h r + i, w r + j] = x[n, c r r + i r + j, h, w]``.

    Args:
        upscale_factor: Rows and columns r of a block.

    Shapes: x (N, C * r * r, H, W) -> y (N, C, H * r, W * r).

    Raises:
        ValueError: A factor below 1; x is not 4-D, or its channels do not divide by ``r * r``.

    Source: Shi et al. 2016, https://arxiv.org/abs/1609.05158
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
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
        """``upscale_factor``."""
        return {"upscale_factor": self.upscale_factor}
