"""Configs of callbacks: ``callback_type`` names the class in a registry; a class that is in none stands there itself.

The registry holds import strings, so that phases can be read from their configs without standing on the callbacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keydnn.experiment.contracts import IConfigurable
from keydnn.experiment.registry import Registry

_HERE = "keydnn.experiment.callbacks"
callback_registry = Registry(
    "callback",
    {
        "Evaluation": f"{_HERE}.evaluation:Evaluation",
        "EarlyStopping": f"{_HERE}.early_stopping:EarlyStopping",
        "EvalLossMetric": f"{_HERE}.metrics:EvalLossMetric",
        "CSVLogger": f"{_HERE}.loggers:CSVLogger",
        "JSONLogger": f"{_HERE}.loggers:JSONLogger",
        "TensorBoardLogger": f"{_HERE}.tensorboard:TensorBoardLogger",
        "MLflowLogger": f"{_HERE}.mlflow:MLflowLogger",
        "LearningRateLogger": f"{_HERE}.extras:LearningRateLogger",
        "GradientClipping": f"{_HERE}.extras:GradientClipping",
        "TimeLimit": f"{_HERE}.extras:TimeLimit",
        "ProgressPrinter": f"{_HERE}.extras:ProgressPrinter",
        "ModelSummary": f"{_HERE}.extras:ModelSummary",
        "ProbeLogger": f"{_HERE}.probe_logger:ProbeLogger",
        "Accuracy": f"{_HERE}.scores:Accuracy",
        "F1": f"{_HERE}.scores:F1",
        "MAE": f"{_HERE}.scores:MAE",
        "RMSE": f"{_HERE}.scores:RMSE",
        "R2": f"{_HERE}.scores:R2",
    },
)


def type_name(cls: type) -> Any:
    """What a config says of a class: its registered name, or the class itself, which files package with its source."""
    return callback_registry.name_of(cls) or cls


def callback_config(callback: Any) -> dict[str, Any]:
    """The config of a callback or metric, with type, label and execution order whether or not its class told them."""
    told: Mapping[str, Any] = callback.get_config()
    common = {"callback_type": type_name(type(callback)), "label": callback.label, "execution_order": callback.execution_order}
    return {**common, **told}


def callback_class(config: Mapping[str, Any], asked: type | None = None) -> Any:
    """The class that a config means.

    Args:
        config: With ``callback_type``; without it ``asked`` is the class.
        asked: What the class must be, or derive from.

    Raises:
        ValueError: No type, an unknown one, or another one than was asked for.
    """
    told = config.get("callback_type", asked)
    if isinstance(told, str):
        if told not in callback_registry:
            known = ", ".join(sorted(callback_registry))
            raise ValueError(
                f"unknown callback_type {told!r}; known: {known}; register the class: callback_registry.register({told!r}, cls)"
            )
        told = callback_registry[told]
    if not isinstance(told, type):
        raise ValueError(f"the config of a callback needs a callback_type, got {dict(config)!r}")
    if asked is not None and not issubclass(told, asked):
        raise ValueError(f"expected the config of a {asked.__name__}, got one of a {told.__name__}")
    return told


def callback_from_config(config: Mapping[str, Any]) -> IConfigurable:
    """The callback that a config describes.

    Raises:
        ValueError: No ``callback_type``, or an unknown one.
    """
    return callback_class(config).from_config(config)
