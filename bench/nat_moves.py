"""The moves of `./dev bench nat`: a guest changes racks in examples/data-centre and keeps its address.

    world: x1        pod 1: a1 [web1 at home], a2, b1 [web2 at home]        pod 2: c2 [web1 then], d1, d2 [web2 since]

nat_systems.py: by which systems. Correspondents: same-rack (a2), other-pod (d1), outside (x1), displaced (web2). What is
measured: guest_moves.py.
"""

import itertools

from guest_moves import Scene
from guest_programs import IPERF_PORTS, corresponding_guest
from guest_systems import RoutedGuest
from guest_traffic import LOADS, Correspondent
from nat_systems import SYSTEMS
from stage import ROOT

CORRESPONDENTS = {"same-rack": Correspondent("a2", iperf_port=IPERF_PORTS[0]),
                  "other-pod": Correspondent("d1", iperf_port=IPERF_PORTS[1]),
                  "outside": Correspondent("x1", iperf_port=IPERF_PORTS[2]),
                  "displaced": Correspondent("b2", "10.66.2.20", IPERF_PORTS[3])}
DATA_CENTRE = ROOT / "examples" / "data-centre"
HOME_ROUTER = "10.66.1.1"


def displaced_guest(lab):
    guest = RoutedGuest(lab, "web2", "b1", CORRESPONDENTS["displaced"].guest, corresponding_guest(), "128MiB")
    CORRESPONDENTS["displaced"].awaits(lab, HOME_ROUTER)
    guest.move("d2", "nat")
    guest.settled_rules()


def prepare(lab, correspondents):
    if "displaced" in correspondents:
        displaced_guest(lab)


SCENE = Scene(bench="nat", lab=DATA_CENTRE / "lab.yaml", fabric=DATA_CENTRE / "fabric.yaml",
              names=itertools.repeat(("web1", "10.66.1.20")), home="a1", target="c2", vm_hosts=("a1", "c2", "d2"),
              correspondents=CORRESPONDENTS, systems=SYSTEMS, judged="godwit-nat", loads=tuple(LOADS),
              quick=("same-rack", "outside"), prepare=prepare)
