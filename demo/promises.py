"""What Godwit promises of a move, checked against what was measured."""

from dataclasses import dataclass

from stage import MAX_DOWNTIME_MS, RTT_MS

# What may lie between a report's parts (it is printed as such): more is a missing part.
SUM_TOLERANCE_MS = 1.0
SUM_TOLERANCE = 0.001  # of the total


@dataclass
class Promise:
    text: str
    kept: bool
    detail: str

    def line(self):
        return f"  {'kept  ' if self.kept else 'BROKEN'}  {self.text:<66} {self.detail}"


def sums_of(report):
    """What the parts of a report leave unexplained: {what: milliseconds or bytes}."""
    rounds = report["rounds"]
    return {"total": report["total_ms"] - report["preparation_ms"] - report["pause_ms"]
                     - sum(r["ms"] for r in rounds),
            "pause": report["pause_ms"] - sum(report["pause"].values()),
            "bytes over": max(0, sum(r["bytes"] for r in rounds) - report["bytes"]["memory_stream"],
                              *bytes_unexplained(report))}


def bytes_unexplained(report):
    """From encoding to encoding, and from the last to the WAN."""
    uses = {use["name"]: use for use in report["encodings"]}
    stream, wan = report["bytes"]["memory_stream"], report["bytes"]["wan"]
    if not uses:
        return [stream - wan]
    zstd = uses.pop("zstd")
    return [abs(stream - sum(use["bytes"] for use in uses.values())),
            abs(zstd["bytes"] - sum(use["encoded_bytes"] for use in uses.values())),
            zstd["encoded_bytes"] - wan]


def at_most(text, value_ms, limit_ms):
    kept = value_ms <= limit_ms
    return Promise(text, kept, f"{value_ms:.1f} ms {'<=' if kept else '>'} {limit_ms:.1f} ms")


def blackout_target(move):
    """What KVM is to reach, where a guest answers as soon as it resumes."""
    return at_most(f"blackout <= pause + RTT ({RTT_MS:.0f} ms) + max(10 ms, idle gap)",
                   move.blackout_ms, move.blackout_limit_ms)


def promises_of(move, drops_allowed=0):
    """`drops_allowed`: wire datagrams that the WAN itself dropped meanwhile."""
    lost = move.frames("lost")
    rest = sums_of(move.report)
    tolerance_ms = max(SUM_TOLERANCE_MS, SUM_TOLERANCE * move.report["total_ms"])
    return [
        Promise("no frame lost" if drops_allowed == 0 else
                f"frames lost <= datagrams dropped by the WAN ({drops_allowed})",
                lost <= drops_allowed, f"{lost}"),
        Promise("no frame duplicated", move.frames("duplicated") == 0,
                f"{move.frames('duplicated')}"),
        Promise("no TCP connection reset, no byte changed", move.resets == 0, f"{move.resets}"),
        Promise("the counter in the vm's memory never jumped", move.counter_jumps == 0,
                f"{move.counter_jumps}"),
        at_most(f"pause <= max-downtime ({MAX_DOWNTIME_MS:.0f} ms)", move.pause_ms, MAX_DOWNTIME_MS),
        at_most(f"blackout <= pause + RTT ({RTT_MS:.0f} ms) + max(10 ms, idle gap, in the vm)",
                move.blackout_ms, move.blackout_promise_ms),
        Promise("the report's parts add up",
                max(abs(rest["total"]), abs(rest["pause"])) <= tolerance_ms and rest["bytes over"] == 0,
                ", ".join(f"{what} {value:+.2f}" for what, value in rest.items())),
    ]
