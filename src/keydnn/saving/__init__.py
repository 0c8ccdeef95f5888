"""Configs, state and files: how models are written and read.  Knows modules only by protocol.

What a module offers: ``_modules`` (name to child), ``named_parameters()``, ``named_buffers()``,
``get_config()`` / ``from_config(config)``, ``register_module(name, child)`` and, where something is to be done after
the children were put in, ``_post_load()``.
"""

from keydnn.saving.config import known_arguments, module_from_config, module_to_config
from keydnn.saving.files import write_atomically
from keydnn.saving.json_v1 import (
    FORMAT,
    check_payload,
    from_payload,
    load_payload_,
    load_state_,
    read_json,
    to_payload,
    to_state,
    write_json,
)
from keydnn.saving.registry import name_of, register_module, registered, registered_names
from keydnn.saving.state import read_state, write_state

__all__ = [
    "FORMAT",
    "check_payload",
    "from_payload",
    "known_arguments",
    "load_payload_",
    "load_state_",
    "module_from_config",
    "module_to_config",
    "name_of",
    "read_json",
    "read_state",
    "register_module",
    "registered",
    "registered_names",
    "to_payload",
    "to_state",
    "write_atomically",
    "write_json",
    "write_state",
]
