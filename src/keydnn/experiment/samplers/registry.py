"""The registry of samplers."""

from __future__ import annotations

from keydnn.experiment.registry import Registry

_HERE = "keydnn.experiment.samplers"
sampler_registry = Registry(
    "sampler",
    {
        "SimpleSampler": f"{_HERE}.simple:SimpleSampler",
        "NSampler": f"{_HERE}.n_sampler:NSampler",
        "PairedSampler": f"{_HERE}.n_sampler:PairedSampler",
        "TripletSampler": f"{_HERE}.n_sampler:TripletSampler",
    },
)
