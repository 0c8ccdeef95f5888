"""What ``plan_report`` prints."""

from __future__ import annotations

from keydnn.compiler.step import RecordedStep, usable


def report(step: RecordedStep | None) -> str:
    """Text about a recorded step: memory, what the passes did, each row with its time, or why the step stays eager."""
    if step is None:
        return "no step has run yet" if usable() else "eager: plans need the native kernels; `keydnn doctor` tells why they are missing"
    if step.plan is None:
        return f"eager: {step.reason or 'not recorded yet'}"
    plan = step.plan
    times = plan.executor.op_ns()
    lines = [
        f"plan of {len(plan.rows)} operations, {plan.arena_bytes / 2**20:.2f} MiB arena, {step.replays} steps replayed",
        *[f"  {note}" for note in plan.notes],
        f"  {'operation':<28}{'of':<24}{'us':>10}",
    ]
    runs = max(step.timed, 1)
    lines += [f"  {row.entry:<28}{row.label:<24}{ns / runs / 1e3:>10.2f}" for row, ns in zip(plan.rows, times, strict=True)]
    if not step.timed:
        lines.append("  times are taken from the third replay on")
    return "\n".join(lines)
