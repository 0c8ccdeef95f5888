"""Which kernels serve: the table, what happens without the native module, and the variables that steer it."""

import json
import warnings

import numpy as np
import pytest

from keydnn.domain.device import CPU, Device
from keydnn.domain.errors import DeviceNotSupportedError
from keydnn.kernels import dispatch, native, reference
from keydnn.kernels.contract import KERNELS
from tests.native.common import needs_native
from tests.native.test_threads import in_new_process

pytestmark = pytest.mark.slow


def missing():
    raise native.NativeUnavailable("import keydnn._native (in /nowhere) failed with ImportError: not built")


def test_the_table_has_every_row_and_is_kept():
    table = dispatch.tables[CPU]
    assert table is dispatch.tables[Device("cpu")]
    assert all(callable(getattr(table, name)) for name in KERNELS)


def test_a_table_of_other_rows_is_refused():
    with pytest.raises(ValueError, match="missing or unknown: add, nonsense"):
        dispatch.KernelTable({name: print for name in KERNELS if name != "add"} | {"nonsense": print})


def test_another_device_is_refused():
    with pytest.raises(DeviceNotSupportedError, match="'cuda:0'"):
        dispatch.tables[Device("cuda:0")]
    assert Device("cuda:0") not in dispatch.tables


def test_without_the_module_there_is_one_warning_and_the_reference_serves(monkeypatch):
    monkeypatch.setattr(native, "load", missing)
    monkeypatch.delenv("KEYDNN_KERNELS", raising=False)
    fresh = type(dispatch.tables)()
    with pytest.warns(RuntimeWarning, match="falling back to NumPy.*/nowhere.*not built") as caught:
        table = fresh[CPU]
        assert fresh[CPU] is table
    assert len(caught) == 1
    assert all(getattr(table, name) is getattr(reference, name) for name in KERNELS)
    assert dispatch.native_status().reason.endswith("not built")


def test_the_reference_can_be_asked_for_in_silence(monkeypatch):
    monkeypatch.setenv("KEYDNN_KERNELS", "reference")
    monkeypatch.setattr(native, "load", missing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dispatch.cpu_table().conv2d is reference.conv2d
    status = dispatch.native_status()
    assert not status.loaded
    assert "KEYDNN_KERNELS=reference" in status.reason


def test_an_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv("KEYDNN_KERNELS", "fast")
    with pytest.raises(ValueError, match="'native' or 'reference', got 'fast'"):
        dispatch.cpu_table()


def test_a_module_that_does_not_load_says_what_was_tried(monkeypatch):
    monkeypatch.setattr(native, "MODULE", "keydnn._no_such_module")
    native.load.cache_clear()
    try:
        with pytest.raises(
            native.NativeUnavailable, match=r"import keydnn\._no_such_module \(in .*keydnn\) failed with ModuleNotFoundError"
        ):
            native.load()
    finally:
        native.load.cache_clear()


@needs_native
def test_the_status_tells_what_runs():
    status = dispatch.native_status()
    assert status.isa in ("baseline", "avx2", "avx512")
    assert status.parallel in ("pool", "openmp", "serial")
    assert status.threads >= 1
    assert "_native" in status.path
    assert status.reason == ""


SWEEP = """
import hashlib, json
import numpy as np
from keydnn.domain.device import CPU
from keydnn.kernels import dispatch, reference
table = dispatch.tables[CPU]
rng = np.random.default_rng(0)
worst, digest = 0.0, hashlib.sha256()

def compare(name, *operands):
    global worst
    got = getattr(table, name)(*operands)
    want = getattr(reference, name)(*operands)
    for g, w in zip(*((v if isinstance(v, tuple) else (v,)) for v in (got, want))):
        digest.update(g.tobytes())
        worst = max(worst, float(np.max(np.abs(g - w) / (1 + np.abs(w)))))

for dtype in (np.float32, np.float64):
    make = lambda *shape: rng.standard_normal(shape).astype(dtype)
    for size in (5, 6, 14, 33):
        for geometry in (((1, 1), (1, 1), (1, 1), 1), ((2, 1), (0, 2), (1, 2), 3)):
            x, w = make(2, 6, size, size + 1), make(9, 6 // geometry[3], 3, 2)
            y = reference.conv2d(x, w, None, *geometry)
            compare("conv2d", x, w, None, *geometry)
            compare("conv2d_grad_x", y, w, x.shape[2:], *geometry)
            compare("conv2d_grad_w", x, y, (3, 2), *geometry)
        for window in (((2, 2), (2, 2), (0, 0)), ((3, 2), (2, 1), (1, 1))):
            compare("maxpool2d", x, *window)
            compare("avgpool2d", x, *window)
    for m, n, k in ((1, 7, 40), (9, 50, 33), (70, 3, 5), (40, 40, 200)):
        compare("linear", make(m, k), make(n, k), make(n))
        compare("matmul", make(k, m), make(k, n), True, False)
    for rows, n in ((9, 20), (33, 7)):
        p, w, b, h, c = (make(*shape) / 2 for shape in ((3, rows, 4 * n), (n, 4 * n), (4 * n,), (rows, n), (rows, n)))
        compare("lstm", p, w, b, h, c, None, False)
        hs, _, _, cs, gates = reference.lstm(p, w, b, h, c, None, False)
        compare("lstm_grad", hs, h, None, gates, cs, hs, w, h, c, None, False)
        p, w, b = p[..., n:].copy(), w[:, n:].copy(), b[n:]
        for after in (False, True):
            compare("gru", p, w, b, b, h, None, True, after)
            hs, _, gates = reference.gru(p, w, b, b, h, None, True, after)
            compare("gru_grad", hs, None, gates, hs, w, h, None, True, after)
print(json.dumps([dispatch.native_status().isa, worst, digest.hexdigest()]))
"""


@needs_native
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_computes_the_same_numbers(isa):
    if not native.load().isa_available(isa):
        pytest.skip(f"this machine has no {isa}")
    runs = [json.loads(in_new_process(SWEEP, KEYDNN_ISA=isa, KEYDNN_NUM_THREADS=n)) for n in ("1", "3")]
    for used, worst, _ in runs:
        assert used == isa
        assert worst < 2e-4  # float32 sums of up to 200 products, some of them near zero
    assert runs[0] == runs[1]


@needs_native
def test_an_instruction_set_that_is_not_there_is_refused():
    code = "from keydnn.kernels import native\ntry:\n    native.load()\nexcept ValueError as e:\n    print(e)"
    assert in_new_process(code, KEYDNN_ISA="sse9").startswith("KEYDNN_ISA='sse9': this machine and this build have baseline")


@needs_native
def test_small_calls_do_not_copy_or_keep_their_operands():
    table = dispatch.tables[CPU]
    x = np.ones((1, 1, 4, 4), np.float32)
    y = table.avgpool2d(x, (1, 1), (1, 1), (0, 0))
    assert not np.shares_memory(x, y)
    y[...] = 5
    assert (x == 1).all()
