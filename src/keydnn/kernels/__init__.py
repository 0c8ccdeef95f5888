"""Kernels: functions from arrays to arrays. `contract` lists them, `dispatch` gives the table that serves a device."""
