#!/usr/bin/python3
"""A vm that writes faster than the link carries: paused for as long as it takes, and in post-copy, with
the link cut while its memory follows.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import contextlib
import pathlib
import sys
import threading
import time

from stage import (HOSTS, LINK, Client, Godwit, Lab, Load, StageError, all_kept, demo, wait_until)

RATE, ONE_WAY = "100mbit", "10ms"
LOAD = Load(memory="128MiB", dirty="300mbit", working_set="24MiB")
CUT_S = 5
MOST_PAUSE = 0.5  # of the pause of the move that waits for all memory
SETTING = pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd")


def say(text=""):
    print(text, flush=True)


def introduce():
    say(f"""
    east: client, e1 ------ {RATE}, {ONE_WAY} one way ------ west: w1

  vm      web, {LOAD.memory}, at e1, which writes {LOAD.dirty} into {LOAD.working_set}; its wire ends at the client
  job     e1 -> w1, paused until all has crossed; back; e1 -> w1 in post-copy: it goes on at w1 and its
          memory follows, with the link cut for {CUT_S} s meanwhile
""")


@contextlib.contextmanager
def single_pages():
    """QEMU, which is not root, may wait for single pages of its guest."""
    before = SETTING.read_text()
    try:
        SETTING.write_text("1")
    except OSError as error:
        raise StageError(f"post-copy needs vm.unprivileged_userfaultfd=1, which cannot be set here: {error}") from None
    try:
        yield
    finally:
        SETTING.write_text(before)


class Moves:
    def __init__(self, lab, client, godwit):
        self.lab, self.client, self.godwit = lab, client, godwit

    def move(self, target, case, *options):
        (migration, _), window = self.client.watch(
            case.replace(" ", "-"), lambda: self.godwit.move(target, options=options))
        report = migration["report"]
        followed = report.get("memory_followed_ms")
        say(f"{case:<20} {report['total_ms'] / 1000:5.1f} s until it ran there, pause {report['pause_ms']:5.0f} ms" +
            (f", its memory followed for {followed / 1000:.1f} s" if followed else "") +
            f"; longest silence {window['from_vm']['gap']['ms'] / 1000:.1f} s")
        return report

    def cut_meanwhile(self):
        host = self.godwit.host
        wait_until(lambda: self.lab.ask(host, "migration", "ls")[-1]["state"] == "postcopy", 120,
                   "the memory follows")
        self.lab.cut(LINK)
        time.sleep(CUT_S)
        self.lab.heal(LINK)


def judge(paused, followed, total):
    share = followed["pause_ms"] / paused["pause_ms"]
    promises = [
        ("pause in post-copy, of the pause without", share, MOST_PAUSE),
        ("moves whose memory followed", 0 if "memory_followed_ms" in followed else 1, 0),
        ("TCP connections reset", total["tcp"]["resets"], 0),
        ("jumps of the counter in the vm's memory", total["counter_jumps"], 0),
    ]
    return all_kept(promises)


def show(options):
    with contextlib.ExitStack() as stack:
        stack.enter_context(single_pages())
        lab = stack.enter_context(Lab(options.lab))
        lab.set_link(f"rate={RATE}", f"delay={ONE_WAY}")
        introduce()
        godwit = Godwit(lab, LOAD)
        godwit.start()
        client = stack.enter_context(Client(lab))
        moves = Moves(lab, client, godwit)
        paused = moves.move(HOSTS["west"], "paused", "--on-diverge", "pause")
        moves.move(HOSTS["east"], "back", "--on-diverge", "pause")
        cutting = threading.Thread(target=moves.cut_meanwhile)
        cutting.start()
        followed = moves.move(HOSTS["west"], "post-copy", "--on-diverge", "postcopy")
        cutting.join()
        total = client.stop()
    return judge(paused, followed, total)


if __name__ == "__main__":
    sys.exit(demo("postcopy", __doc__, show))
