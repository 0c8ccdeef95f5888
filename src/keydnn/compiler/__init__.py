"""The step compiler: a step is recorded once in Python, improved, and replayed by a native plan.

recorder -> ir -> passes -> lower -> memory -> plan; `step` ties them together, `function` is `keydnn.compile`.
"""

from keydnn.compiler.function import CompiledFunction, compile
from keydnn.compiler.step import RecordedStep, usable

__all__ = ["CompiledFunction", "RecordedStep", "compile", "usable"]
