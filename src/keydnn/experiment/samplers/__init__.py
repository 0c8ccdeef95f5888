"""Samplers: sources of samples turned into streams of batches."""

from keydnn.experiment.samplers.base import BaseSampler, Samples
from keydnn.experiment.samplers.n_sampler import NSampler, PairedSampler, TripletSampler
from keydnn.experiment.samplers.registry import sampler_registry
from keydnn.experiment.samplers.simple import SimpleSampler
from keydnn.experiment.similarity import SimilarityCondition

__all__ = [
    "BaseSampler",
    "NSampler",
    "PairedSampler",
    "Samples",
    "SimilarityCondition",
    "SimpleSampler",
    "TripletSampler",
    "sampler_registry",
]
