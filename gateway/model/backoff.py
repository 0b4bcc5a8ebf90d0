"""How long to wait before the next try. Pure."""

from __future__ import annotations

MAX_DOUBLINGS = 32


def next_delay_s(attempt: int, first_s: float, ceiling_s: float, luck: float) -> float:
    """Full-jitter exponential back-off after `attempt` earlier failures; `luck` is uniform in [0, 1).

    Never less than a twentieth of the step: a pause of nothing would hammer a peer that refuses at once.
    """
    step = min(ceiling_s, first_s * float(2 ** min(attempt, MAX_DOUBLINGS)))
    return step * (0.05 + 0.95 * luck)
