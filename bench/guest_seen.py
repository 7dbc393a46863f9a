"""What a correspondent saw of a guest in a window, and what follows from times of answers."""

from dataclasses import dataclass

ALIVE_MS = 1000.0  # a flow has survived that brings something in the last second of its window


@dataclass
class Seen:
    """Of a window."""

    gap_ms: float           # the longest time without an answer that was due
    survived: bool
    rtt_ms: float | None = None
    lost: int | None = None  # None: not known, or not asked
    in_vm_ms: float | None = None  # the part of the gap in which the guest ran, by its clock
    losses: str = ""  # where they lie
    mbit_s: float | None = None  # of its last RATE_S


def silence(times, begun, ended):
    """(The longest time without an answer in ms, whether there was one in the end); `times`: of those in the window."""
    gap = max(b - a for a, b in zip([begun, *times], [*times, ended]))
    return gap * 1000, bool(times) and ended - times[-1] < ALIVE_MS / 1000


def median(values):
    return sorted(values)[len(values) // 2] if values else None
