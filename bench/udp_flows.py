"""Many UDP connections of one host with the guest's UDP service (src/lab/guest/protocol.hh).

This file is also the program that has them, in a host:

    ADDRESS COUNT FIRST-PORT    opens as many, from as many ports, waits for the guest, and asks it by each until it has
                                answered; prints how many have. From then on each line on standard input is a number:
                                so many of them, spread evenly, ask again, and it prints how many were answered
"""

import contextlib
import pathlib
import resource
import select
import socket
import struct
import subprocess
import sys
import time

PYTHON = "/usr/bin/python3"
SERVICE_PORT = 7007
MAGIC, VERSION, PROBE = 0x47574C54, 1, 1
CLIENT = 0x10000  # one for all: each is answered where it asks from
AT_ONCE, ANSWER_S, TRIES, BOOT_LIMIT_S = 64, 1.0, 5, 60


def probe(sequence):
    return struct.pack(">IBBHQQQQQ", MAGIC, VERSION, PROBE, 0, CLIENT, sequence, 0, 0, 0) + bytes(80)


class Flows:
    """At a host of a lab, for as long as this context lasts."""

    def __init__(self, lab, host, address, count, first_port=20_000):
        self._process = lab.start(host, PYTHON, "-c", pathlib.Path(__file__).read_text(encoding="utf-8"), address,
                                  f"{count}", f"{first_port}", stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()

    def answered(self):
        """How many were, of those that asked last."""
        return int(self._process.stdout.readline() or 0)

    def ask(self, count):
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return self.answered()


def answered_of(sockets):
    """Asks by each, some at once."""
    count = 0
    for begin in range(0, len(sockets), AT_ONCE):
        waiting = sockets[begin:begin + AT_ONCE]
        for _ in range(TRIES):
            waiting = unanswered(waiting)
        count += len(sockets[begin:begin + AT_ONCE]) - len(waiting)
    return count


def unanswered(sockets):
    for each in sockets:
        with contextlib.suppress(OSError):  # an ICMP error from before
            each.send(probe(0))
    waiting, until = set(sockets), time.monotonic() + ANSWER_S
    poll = select.poll()
    by_number = {each.fileno(): each for each in sockets}
    for number in by_number:
        poll.register(number, select.POLLIN)
    while waiting and (left := until - time.monotonic()) > 0:
        for number, _ in poll.poll(left * 1000):
            each = by_number[number]
            try:
                each.recv(2048)
                waiting.discard(each)
            except OSError:  # an ICMP error
                pass
    return list(waiting)


def spread(sockets, count):
    count = min(count, len(sockets))
    return [sockets[index * len(sockets) // count] for index in range(count)]


def main(address, count, first_port):
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, max(count + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    sockets = []
    for number in range(count):
        each = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        each.bind(("", first_port + number))
        each.connect((address, SERVICE_PORT))
        sockets.append(each)
    until = time.monotonic() + BOOT_LIMIT_S
    while unanswered(sockets[:1]) and time.monotonic() < until:
        pass
    print(answered_of(sockets), flush=True)
    for line in sys.stdin:
        print(answered_of(spread(sockets, int(line))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
