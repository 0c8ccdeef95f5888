"""Configs, state and files: how models are written and read.  Knows modules only by protocol."""
