"""Contracts and value types: devices, errors, protocols.  Standard library only; imports no other room."""
