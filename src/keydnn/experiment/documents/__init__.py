"""Documents: the configs of graphs, phases, experiments, samplers and splitters as YAML that people write and read."""
