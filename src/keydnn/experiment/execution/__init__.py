"""Execution: phases, plans and folds, run."""

from keydnn.experiment.execution.cross_validation import CrossValidation
from keydnn.experiment.execution.folds import CVBinding
from keydnn.experiment.results import CVResults

__all__ = ["CVBinding", "CVResults", "CrossValidation"]
