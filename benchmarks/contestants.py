"""Who takes part in ``steps`` and ``ops``: each name with its code, its packages and the environment of its process."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.measure import Result
from benchmarks.remote import ContestantError, Remote

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
OURS, THEIRS = "keydnn", "torch"  # the names that the ratios are taken of


@dataclass(frozen=True)
class Entry:
    """One contestant; ``peer`` is what ``--peers`` and ``--python`` know it by."""

    name: str
    peer: str
    make: str
    packages: tuple[str, ...] = ()
    keeps_memory: bool = False

    def process(self, interpreters: dict[str, str], threads: int) -> Remote:
        """A process for it, not started yet."""
        environment = KEEP_MEMORY if self.keeps_memory else {}
        python = interpreters.get(self.peer)
        return Remote(self.name, self.make, packages=self.packages, python=python, environment=environment, threads=threads)


STEPS = [
    Entry(OURS, "keydnn", "benchmarks.peers.ours:recorded"),
    Entry("keydnn eager", "keydnn", "benchmarks.peers.ours:eager"),
    Entry(THEIRS, "torch", "benchmarks.peers.in_torch:eager", ("torch",)),
    Entry("torch tuned", "torch", "benchmarks.peers.in_torch:tuned", ("torch",), True),
    Entry("torch.compile", "torch", "benchmarks.peers.in_torch:compiled", ("torch",), True),
    Entry("jax", "jax", "benchmarks.peers.in_jax:make", ("jax", "jaxlib")),
    Entry("keras", "keras", "benchmarks.peers.in_keras:fitted", ("keras", "tensorflow")),
    Entry("tf.function", "keras", "benchmarks.peers.in_keras:function", ("keras", "tensorflow")),
    Entry("tf.function xla", "keras", "benchmarks.peers.in_keras:xla", ("keras", "tensorflow")),
    Entry("tinygrad", "tinygrad", "benchmarks.peers.in_tinygrad:make", ("tinygrad",)),
    Entry("onnxruntime", "onnxruntime", "benchmarks.peers.in_onnxruntime:make", ("onnxruntime", "onnx")),
]
PEERS = tuple(dict.fromkeys(entry.peer for entry in STEPS if entry.peer != "keydnn"))


def started(entries: list[Entry], interpreters: dict[str, str], threads: int) -> tuple[list[Remote], dict[str, str]]:
    """Start those that can start; the others come back with the reason."""
    running, missing = [], {}
    for entry in entries:
        process = entry.process(interpreters, threads)
        try:
            process.start()
        except ContestantError as reason:
            missing[entry.name] = str(reason)
        else:
            running.append(process)
    return running, missing


def best_peer(result: Result) -> str | None:
    """The fastest contestant that is not ours."""
    return result.fastest([name for name in result.seconds if not name.startswith(OURS)])
