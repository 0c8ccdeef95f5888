"""What a registry does with a label or id that is taken, and small helpers of the registry."""

from __future__ import annotations

import os
import sys
from typing import Any

from keydnn.experiment.choices import Choice

POLICY_VARIABLE = "KEYDNN_EXP_REGISTRATION_POLICY"
NODE_KINDS = ("ExperimentNode", "GraphNode", "ComputeNode", "ModelNode", "MergeNode", "FeatureSet")


class RegistrationPolicy(Choice):
    """What happens when a label or id is registered already."""

    ERROR = "error"
    OVERWRITE = "overwrite"
    OVERWRITE_WARN = "overwrite_warn"
    NO_REGISTER = "no_register"


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def default_policy() -> RegistrationPolicy:
    """The environment's policy; else overwrite with a warning in a notebook, and error elsewhere."""
    chosen = os.environ.get(POLICY_VARIABLE)
    if chosen:
        return RegistrationPolicy.from_value(chosen)
    return RegistrationPolicy.OVERWRITE_WARN if in_notebook() else RegistrationPolicy.ERROR


def kinds_of(node: object) -> set[str]:
    """Names of the classes of a node."""
    return {cls.__name__ for cls in type(node).__mro__}


class BothLevels:
    """A method that works on the class too, where it acts on the active context."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: Any) -> Any:
        chosen = instance if instance is not None else owner.get_active()
        return self._function.__get__(chosen, owner)
