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
from keydnn.saving.migrations import migrate, register_migration
from keydnn.saving.names import KeyMap, renamed
from keydnn.saving.packed import read_msgpack, write_msgpack
from keydnn.saving.registry import name_of, register_module, registered, registered_names
from keydnn.saving.state import read_state, write_state
from keydnn.saving.weights import read_weights, write_weights

__all__ = [
    "FORMAT",
    "KeyMap",
    "check_payload",
    "from_payload",
    "known_arguments",
    "load_payload_",
    "load_state_",
    "migrate",
    "module_from_config",
    "module_to_config",
    "name_of",
    "read_json",
    "read_msgpack",
    "read_state",
    "read_weights",
    "register_migration",
    "register_module",
    "registered",
    "registered_names",
    "renamed",
    "to_payload",
    "to_state",
    "write_atomically",
    "write_json",
    "write_msgpack",
    "write_state",
    "write_weights",
]
