"""Diagrams and summaries of what an experiment is made of."""

from keydnn.experiment.visualization.visualizer import FeatureSetDisplayOptions, ModelGraphDisplayOptions, Visualizer

__all__ = ["FeatureSetDisplayOptions", "ModelGraphDisplayOptions", "Visualizer"]
