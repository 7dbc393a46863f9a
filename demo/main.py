#!/usr/bin/python3
"""The main job: a running vm moves east -> west and back while a client talks to it.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys

from promises import blackout_target, promises_of
from stage import (AGENT_LOG, CLIENT_PORT, HOSTS, LINK, SHORTEST_IDLE_S, WAYS, Client, Godwit, Lab, Load,
                   StageError, demonstrated, gaps_ms, measure, write_rows)

CAPTURE_LIMIT_S = 10


def say(text=""):
    print(text, flush=True)


def introduce(lab, load):
    direction = lab.describe()["links"][0]["directions"][0]
    say(f"""
    site east                                    site west
      e1: godwitd, vm web --+                  +-- w1: godwitd
      client: godwitd ------+===={LINK:=^10}====+

  WAN     {2 * direction['delay_ms']:.0f} ms RTT, {direction['rate_bps'] / 1e6:.0f} Mbit/s, \
queue {direction['queue_limit_bytes'] / 1e6:.1f} MB (emulated)
  vm      web: {load.memory}, TCP and UDP services, writes to memory at {load.dirty} over \
{load.working_set}
  client  1,000 packets/s each way and 4 TCP connections, over a wire from {CLIENT_PORT} to the vm
  job     move the vm east -> west, then back, while the client goes on
""")


def capture(lab, directory):
    """Starts a packet capture of the client's port; returns when it captures."""
    with open(directory / "client.pcap", "wb") as file:
        tcpdump = lab.start("client", "tcpdump", "-i", CLIENT_PORT, "-w", "-", "-U", "-s", "128",
                            "-B", "16384", "-Z", "root", "--immediate-mode",
                            "--time-stamp-precision=nano", "udp port 7007",
                            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE,
                            start_new_session=True)
    line = ""
    for line in tcpdump.stderr:
        if "listening on" in line:
            return tcpdump
    hint = "" if os.geteuid() == 0 else " (without root it cannot run: do --keep as root)"
    raise StageError(f"tcpdump ended with status {tcpdump.wait()}: {line.strip()}{hint}")


def end_capture(tcpdump):
    tcpdump.terminate()
    tcpdump.wait(CAPTURE_LIMIT_S)


def move_once(lab, client, godwit, case):
    """One move with the CLI's own progress display and report."""
    source, target = case.split("-")

    def move():
        migration, text = godwit.move(HOSTS[target])
        say("\n" + text.rstrip())
        report = migration["report"]
        return report["total_ms"] / 1000, report["pause_ms"], report

    say(f"--- {source} -> {target}:  godwit migrate web --to {HOSTS[target]}\n")
    return measure(lab, client, case, "godwit", move)


def show_client_side(move):
    gaps, idle, tcp = gaps_ms(move.window), gaps_ms(move.idle), move.window["tcp"]

    def fates(way):
        return ", ".join(f"{move.window[way][f]} {f}" for f in ("lost", "duplicated", "reordered"))

    say(f"""
  as the client saw it
  blackout  {gaps['to_vm']:.1f} ms to the vm, {gaps['from_vm']:.1f} ms from it \
(longest gap at 1,000 packets/s)
  in the vm {move.in_vm_ms:.1f} ms of it: the vm ran, by its own clock, and had not come to its next packet
  idle gap  {idle['to_vm']:.1f} ms to the vm, {idle['from_vm']:.1f} ms from it \
({move.idle['length_ms'] / 1000:.1f} s without a move)
  to vm     {fates('to_vm')}
  from vm   {fates('from_vm')}
  TCP       {tcp['resets']} resets, {tcp['mismatches']} wrong bytes, {move.rto} RTOs
  memory    {move.counter_jumps} jumps of the counter in the vm's memory
  WAN       {move.wan.bytes / 1e6:.1f} MB both ways (the emulator's count)
  CPU       {', '.join(f'{s:.2f} s at {h}' for h, s in move.cpu_s.items())} (all processes)
""")


def judge(moves, total):
    """Prints the promises of each move; True if all were kept."""
    kept = True
    for move in moves:
        say(f"promises, {move.case}")
        for promise in promises_of(move):
            kept = kept and promise.kept
            say(promise.line())
        target = blackout_target(move)
        if not target.kept and move.blackout_ms <= move.blackout_promise_ms:
            say(f"  missed  {target.text:<66} {target.detail}")
            say(f"          for {move.in_vm_ms:.1f} ms of it the vm itself was at work; without KVM, QEMU "
                "translates its code anew")
    lost = sum(total[way][fate] or 0 for way in WAYS for fate in ("lost", "duplicated"))
    say(f"\nfrom the client's first packet to its last: {total['to_vm']['sent']} packets sent, "
        f"{lost} lost or duplicated, {total['tcp']['resets']} resets")
    return kept and lost == 0 and total["tcp"]["resets"] == 0


def keep_evidence(directory, lab, client, moves):
    """What a second opinion needs: the client's windows, the agents' reports, counters and logs."""
    (directory / "windows.json").write_text(json.dumps(client.windows, indent=1))
    for host in ("client", *HOSTS.values()):
        (directory / f"{host}.log").write_text(lab.run(host, "cat", AGENT_LOG))
        (directory / f"{host}.json").write_text(json.dumps(
            {what: lab.ask(host, what, "ls") for what in ("wire", "port")}, indent=1))
    (directory / "reports.json").write_text(
        json.dumps({move.case: move.report for move in moves}, indent=1))


def show(options):
    load = Load(dirty=options.dirty, working_set=options.working_set)
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(options.lab))
        introduce(lab, load)
        godwit = Godwit(lab, load)
        godwit.start()
        tcpdump = capture(lab, options.keep) if options.keep else None
        say(f"vm web boots at {godwit.host} ({godwit.vm()['accelerator']})")
        client = stack.enter_context(Client(lab))
        quiet = gaps_ms(client.watch_idle("idle", SHORTEST_IDLE_S))
        say(f"idle for {SHORTEST_IDLE_S:.0f} s: the longest gaps are {quiet['to_vm']:.1f} ms to the vm "
            f"and {quiet['from_vm']:.1f} ms from it\n")
        moves = []
        for case in ("east-west", "west-east"):
            moves.append(move_once(lab, client, godwit, case))
            show_client_side(moves[-1])
        total = client.stop()
        if options.keep:
            end_capture(tcpdump)
            keep_evidence(options.keep, lab, client, moves)
    if options.json:
        write_rows(options.json, [row for move in moves for row in move.rows("demo")])
    return judge(moves, total)


def arguments():
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    parser.add_argument("--dirty", default="20mbit", metavar="RATE",
                        help="the vm writes to its memory at this rate (default %(default)s)")
    parser.add_argument("--working-set", default="64MiB", metavar="SIZE",
                        help="over so much of it (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures as rows")
    parser.add_argument("--keep", metavar="DIRECTORY", type=pathlib.Path,
                        help="keep a packet capture of the client's port, its windows, the reports")
    parser.add_argument("--lab", default="demo", metavar="NAME", help="the lab's name")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    return options


def main():
    options = arguments()
    return demonstrated(lambda: show(options))


if __name__ == "__main__":
    sys.exit(main())
