"""What phases leave behind: series of contexts, tensors, losses and metrics."""

from keydnn.experiment.series import AxisSeries

__all__ = ["AxisSeries"]
