"""When a guest can use the address that it has where it went, under `./dev bench mobility`: configured before the move, or
in the naive order after it (`godwit migrate --strategy secondary-nic --configure before|after`); interleaved.

  way_out_ms    from when the guest ran again until what begins anew has the new address; the naive order's end is that of
                its command
  command_s     all of it: the NIC plugged in, wired and configured, and the move
  pause_ms      of the report
  connections_survived_percent   of one to x1, and one to a host without an agent, that were there before
"""

import json
import statistics
import subprocess
import sys
import time

from guest_moves import WARM_BYTES, WORDS
from guest_systems import RoutedGuest
from mobility_moves import SCENE
from mobility_systems import remove_second_nic
from stage import MOVE_LIMIT_S, Lab, StageError, finished, guest_image, wait_until, warm_memory

SYSTEMS = {"godwit-secondary-nic": "before", "naive-order": "after"}
WITNESSES = ("x1", "router-world")
UNITS = {"way_out_ms": "ms", "command_s": "s", "pause_ms": "ms", "connections_survived_percent": "%"}
READY_S = 60
# One connection to the guest's echo service: a line is asked for, and is there within 10 s or not.
ASK = """
import socket, sys, time
for tries in range(100):  # a guest answers pings before it serves
    try:
        s = socket.create_connection((sys.argv[1], 7007), 10)
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
print('ready', flush=True)
for line in sys.stdin.buffer:
    s.sendall(line)
    got = b''
    while len(got) < len(line): got += s.recv(100)
    print('same' if got == line else 'other', flush=True)
"""


def measure(options):
    figures = {system: [] for system in SYSTEMS}
    with Lab(options.lab, config=SCENE.lab) as lab:
        SCENE.make(lab, {})
        for _ in range(1 if options.quick else options.rounds or 5):
            for system, when in SYSTEMS.items():
                of_it = moved(lab, when)
                print(f"  {system}: " + "  ".join(f"{metric} {value:.4g}" for metric, value in of_it.items()), flush=True)
                figures[system].append(of_it)
    return [{"bench": "mobility", "case": "second-nic", "system": system, "metric": metric, "unit": unit,
             "value": statistics.median(of_it[metric] for of_it in rounds)}
            for system, rounds in figures.items() for metric, unit in UNITS.items()]


def moved(lab, when):
    name, address = next(SCENE.names)
    _, initrd = guest_image(with_agent=True)
    guest = RoutedGuest(lab, name, SCENE.home, address, initrd, "128MiB", WORDS, options=("--guest-agent",))
    wait_until(lambda: all(answers(lab, who, address) for who in WITNESSES), READY_S, f"{name} answers")
    talks = [lab.start(who, sys.executable, "-u", "-c", ASK, address, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
             for who in WITNESSES]
    if any(talk.stdout.readline() != "ready\n" for talk in talks):
        raise StageError(f"{name} does not serve")
    warm_memory(WARM_BYTES)
    begun = time.time()
    finished(lab.command(SCENE.home, "godwit", "migrate", name, "--to", SCENE.target, "--strategy", "secondary-nic",
                         "--configure", when, "--max-downtime", "300ms", "--on-diverge", "pause"), MOVE_LIMIT_S)
    ended = time.time()
    move = next(each for each in reversed(lab.ask(SCENE.home, "migration", "ls")) if each["vm"] == name)
    guest.host = SCENE.target
    of_it = {"way_out_ms": move["flip"]["ms"] if when == "before" else 1000 * ended - move["handed_over_ms"],
             "command_s": ended - begun,
             "pause_ms": move["report"]["pause_ms"],
             "connections_survived_percent": 100.0 * sum(map(lives, talks)) / len(talks)}
    for talk in talks:
        talk.kill()
    guest.end()
    remove_second_nic(lab, guest, SCENE.target)
    lab.run(SCENE.target, "godwit", "port", "rm", guest.uplink)
    return of_it


def answers(lab, who, address):
    return lab.start(who, "ping", "-c1", "-W1", address, stdout=subprocess.DEVNULL).wait() == 0


def lives(talk):
    talk.stdin.write("are you there?\n")
    talk.stdin.flush()
    return talk.stdout.readline() == "same\n"


def judge(rows):
    """Whether the connections survived, and the prepared order is the sooner one."""
    value = {(row["system"], row["metric"]): row["value"] for row in rows}
    sooner = value["godwit-secondary-nic", "way_out_ms"] < value["naive-order", "way_out_ms"]
    all_survived = all(value[system, "connections_survived_percent"] == 100 for system in SYSTEMS)
    print("\n  " + json.dumps({f"{system} {metric}": round(each, 1) for (system, metric), each in value.items()}))
    print(f"  the address can be used sooner than in the naive order: {'met' if sooner else 'MISSED'}; all connections live: "
          f"{'met' if all_survived else 'MISSED'}", flush=True)
    return sooner and all_survived
