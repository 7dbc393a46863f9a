"""In the client's host: fills a redis and writes to it, until it is ended.

    redis_load.py ADDRESS PORT MIB WRITES_PER_SECOND

Values are records of 1 KiB, half words, half hexadecimal digits: zstd makes two fifths of them. Keys are
written by Zipf's law. A write that is late, as the vm is paused, is not made up for.
"""

import itertools
import random
import socket
import sys
import time

VALUE_BYTES = 1024
BATCH = 256           # writes under way while it fills
STEPS_PER_SECOND = 50
CONNECT_LIMIT_S = 60


class Records:
    def __init__(self, seed):
        self._random = random.Random(seed)
        words = ["".join(self._random.choices("etaoinshrdlu", k=self._random.randint(2, 10)))
                 for _ in range(2000)]
        self._text = " ".join(self._random.choices(words, k=100_000)).encode()

    def next(self):
        at = self._random.randrange(len(self._text) - VALUE_BYTES)
        digits = self._random.randbytes(VALUE_BYTES // 4).hex().encode()
        return self._text[at:at + VALUE_BYTES - len(digits)] + digits


class Redis:
    """Writes of many keys at once (RESP: each answered by +OK)."""

    def __init__(self, address):
        self._socket = socket.create_connection(address, CONNECT_LIMIT_S)
        self._socket.settimeout(None)  # a vm may be away for long
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, pairs):
        self._socket.sendall(b"".join(
            b"*3\r\n$3\r\nSET\r\n$10\r\nrec%07d\r\n$%d\r\n%b\r\n" % (key, len(value), value)
            for key, value in pairs))
        due = len(pairs) * len(b"+OK\r\n")
        while due > 0:
            answer = self._socket.recv(1 << 16)
            if not answer or b"-" in answer:
                sys.exit(f"redis: {answer!r}")
            due -= len(answer)


def main():
    host, port, mib, per_second = sys.argv[1], *map(int, sys.argv[2:])
    records, redis, keys = Records(1), Redis((host, port)), (mib << 20) // VALUE_BYTES
    for first in range(0, keys, BATCH):
        redis.write([(key, records.next()) for key in range(first, min(first + BATCH, keys))])
    print("filled", flush=True)

    chosen = random.Random(2)
    order = list(range(keys))
    chosen.shuffle(order)  # often written keys do not lie together
    weights = list(itertools.accumulate(1 / rank for rank in range(1, keys + 1)))
    while True:
        begun = time.monotonic()
        written = chosen.choices(order, cum_weights=weights, k=per_second // STEPS_PER_SECOND)
        redis.write([(key, records.next()) for key in written])
        time.sleep(max(0.0, begun + 1 / STEPS_PER_SECOND - time.monotonic()))


if __name__ == "__main__":
    main()
