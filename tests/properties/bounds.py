"""How long a property is looked at: few examples, new ones in each run, and the way back to one that failed."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def looked_at(examples: int, *, steps: int = 50) -> settings:
    """Bounds for one test; a failure prints its seed and the line that brings the example back."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=False,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
