"""The moves of `./dev bench mobility`: a guest goes from h1 to f1, a subnet where its address means nothing.

    home: h1 h2 --5ms-- world: x1 --10ms-- abroad: f1
                          |
                         5ms-- lodging: n1, behind a symmetric NAT

Correspondents: same-subnet (h2, with an agent), other-site (x1, with one), no-agent (the router of x1's site), behind-nat
(n1: it has an agent, but the address that the guest knows it by is the NAT's, for which no agent speaks).

mobility_systems.py: by which systems. What is measured: guest_moves.py, and there.
"""

import itertools

from guest_moves import Scene
from guest_programs import IPERF_PORTS
from guest_traffic import Correspondent
from mobility_systems import SYSTEMS
from stage import ROOT

CORRESPONDENTS = {"same-subnet": Correspondent("h2", iperf_port=IPERF_PORTS[0]),
                  "other-site": Correspondent("x1", iperf_port=IPERF_PORTS[1]),
                  "no-agent": Correspondent("router-world", iperf_port=IPERF_PORTS[2]),
                  "behind-nat": Correspondent("n1", iperf_port=IPERF_PORTS[3], behind="router-lodging")}
# A guest of its own for each move: who asks for the one before is refused for two minutes.
NAMES = ((f"vm{number}", f"10.66.1.{number}") for number in itertools.cycle(range(20, 190)))
SCENE = Scene(bench="mobility", lab=ROOT / "bench" / "mobility_lab.yaml",
              fabric=ROOT / "examples" / "abroad" / "fabric.yaml", names=NAMES, home="h1", target="f1",
              vm_hosts=("h1", "f1"), correspondents=CORRESPONDENTS, systems=SYSTEMS, judged="godwit-endpoint",
              loads=("ping", "udp-1000", "ssh", "redis", "iperf3"), quick=("other-site", "no-agent"),
              units={"relay_bytes": "bytes", "path_stretch": ""})
