#!/usr/bin/python3
"""A thin WAN: the same vm moves as it is, then compact, then back to a host that knows it, and once
more while the link is cut.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import contextlib
import sys
import threading
import time

from stage import (HOSTS, LINK, WAYS, Client, Godwit, Lab, Load, all_kept, demo, wait_until)

RATE, ONE_WAY = "100mbit", "20ms"
CUT_S = 10
CUT_AFTER_BYTES = 20e6  # of memory, at the target
MOST_BYTES = 0.8        # of what the vm costs as it is
MOST_AGAIN = 1.15       # of what it costs without a cut; the vm goes on writing meanwhile
MOST_BACK = 0.3         # of what the way there cost: the host it left still knows most of its memory


def say(text=""):
    print(text, flush=True)


def introduce():
    say(f"""
    east: client, e1 ------ {RATE}, {ONE_WAY} one way ------ west: w1

  vm      web, 256 MiB, at e1; its wire ends at the client
  job     e1 -> w1 as it is; back; e1 -> w1 compact; back, as a host keeps what it knows of a vm
          for an hour; e1 -> w1 with the link cut for {CUT_S} s
""")


class Moves:
    """Moves of one vm, each measured at the WAN."""

    def __init__(self, lab, client, godwit):
        self.lab, self.client, self.godwit = lab, client, godwit
        self.lost = self.dropped = 0  # frames; datagrams of wires, by the full queue of the WAN

    def move(self, target, case, *options):
        """(the report, bytes over the WAN)."""
        before = self.lab.wan()
        (migration, _), window = self.client.watch(
            case.replace(" ", "-"), lambda: self.godwit.move(target, options=("--on-diverge", "pause", *options)))
        report = migration["report"]
        wan = self.lab.wan().since(before)
        self.dropped += wan.udp_drops
        self.lost += sum(window[way]["lost"] for way in WAYS)
        say(f"{case:<28} {report['total_ms'] / 1000:6.1f} s  {wan.bytes / 1e6:6.1f} MB over the WAN  "
            f"pause {report['pause_ms']:4.0f} ms")
        return report, wan.bytes

    def home(self, case):
        return self.move(HOSTS["east"], case)

    def cut_meanwhile(self):
        """Once the copy is well under way: no byte passes for CUT_S."""
        def copied():
            move = self.lab.ask(self.godwit.host, "migration", "ls")[-1]
            return move["state"] == "copying" and \
                move.get("progress", {}).get("sent_bytes", 0) > CUT_AFTER_BYTES
        wait_until(copied, 60, "the copy is under way")
        self.lab.cut(LINK)
        time.sleep(CUT_S)
        self.lab.heal(LINK)


def encodings(report):
    return ", ".join(f"{use['name']} {use['bytes'] / 1e6:.1f} -> {use['encoded_bytes'] / 1e6:.1f} MB"
                     for use in report["encodings"] if use["bytes"] > 1e5)


def judge(plain, compact, back, cut, moves, total):
    promises = [
        ("bytes of the compact move, of those of the other", compact / plain, MOST_BYTES),
        ("bytes of the way back, of those of the way there", back / compact, MOST_BACK),
        ("bytes of the move that was cut, of those without", cut / compact, MOST_AGAIN),
        ("frames lost in five moves, dropped by the WAN", moves.lost, moves.dropped),
        ("TCP connections reset", total["tcp"]["resets"], 0),
        ("jumps of the counter in the vm's memory", total["counter_jumps"], 0),
    ]
    return all_kept(promises)


def show(options):
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(options.lab))
        lab.set_link(f"rate={RATE}", f"delay={ONE_WAY}")
        introduce()
        godwit = Godwit(lab, Load(memory="256MiB", dirty="2mbit", working_set="4MiB"))
        godwit.start()
        client = stack.enter_context(Client(lab))
        moves = Moves(lab, client, godwit)
        west = HOSTS["west"]
        _, plain = moves.move(west, "as it is", "--no-compact")
        moves.home("back")
        report, compact = moves.move(west, "compact", "--no-known")
        say(f"  {encodings(report)}")
        report, back = moves.home("back, known there")
        say(f"  {encodings(report)}")
        cutting = threading.Thread(target=moves.cut_meanwhile)
        cutting.start()
        _, cut = moves.move(west, f"compact, cut for {CUT_S} s", "--no-known")
        cutting.join()
        total = client.stop()
    return judge(plain, compact, back, cut, moves, total)


if __name__ == "__main__":
    sys.exit(demo("thin", __doc__, show))
