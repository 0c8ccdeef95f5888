"""The native kernels without Python around them: their flat C interface, called through ctypes.

Each kernel is ``int keydnn_<name>_<f32|f64>(...)``: plain pointers and sizes, outputs allocated by the caller, 0 when all
went well.  Any language that can call C can do the same.
"""

import ctypes
import sys

import numpy as np

from keydnn.kernels.dispatch import native_status

status = native_status()
if not status.loaded:
    print(f"no native kernels here: {status.reason}")
    sys.exit(0)

library = ctypes.CDLL(status.path)
library.keydnn_isa.restype = ctypes.c_char_p
print("instruction set:", library.keydnn_isa().decode())

floats = np.ctypeslib.ndpointer(dtype=np.float32, flags="C_CONTIGUOUS")
library.keydnn_relu_f32.argtypes = [floats, floats, ctypes.c_int64]

x = np.linspace(-2, 2, 9, dtype=np.float32)
y = np.empty_like(x)
code = library.keydnn_relu_f32(x, y, x.size)
print("relu:", y, "status:", code)
assert code == 0 and np.array_equal(y, np.maximum(x, 0))
