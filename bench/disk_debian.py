"""`bench disk`, case debian-base: a Debian (tools/make-debian-image) that has booted from an overlay on an image which both hosts
have, with its PostgreSQL started. Much of its memory is what the image has.

Peers copy the overlay alone; qemu-mirror-zstd sends memory by multifd with zstd, four channels: what makes QEMU's bytes fewest.
Bytes to reach: 0.55 of the best QEMU's.

  known_bytes  of Godwit's memory, what the target had in the image
"""

import disk_postgres
from debian import BOOT_LIMIT_S
from disk_case import LINKS, WAYS, DebianLoad, by_godwit, debian, files_of
from mirror import Mirroring
from stage import HOSTS, VM, VM_PORT, Godwit, Lab, wait_until, warm_memory
from stock import Settings

NAME = "debian-base"
IMAGE = "debian"
INDEX = f"/var/lib/godwit/contents/image.{IMAGE}.index"
PEERS = {"qemu-mirror-top": Settings(),
         "qemu-mirror-zstd": Settings(("multifd",), {"multifd-channels": 4, "multifd-compression": "zstd"})}
WARM_BYTES = 4 << 30


class BasedDebian(Godwit):
    """At e1; the image is at both hosts, and indexed at the other."""

    def start(self):
        for host in HOSTS.values():
            self.lab.run(host, "godwit", "image", "add", IMAGE, str(debian() / "root.qcow2"))
            wait_until(lambda: self.lab.start(host, "test", "-e", INDEX).wait() == 0, BOOT_LIMIT_S, "an index of the image")
        kernel, initrd = self.load.files()
        self.lab.run(self.host, "godwit", "vm", "run", VM, "--memory", self.load.memory, "--disk", f"root,image={IMAGE}",
                     "--kernel", kernel, "--initrd", initrd, "--append", self.load.append(), "--nic", VM_PORT)
        disk_postgres.join_client_and_start_database(self.lab)

    def move(self, *words, **options):
        moved = super().move(*words, **options)
        self.known_bytes = sum(use["bytes"] for use in moved[0]["report"]["encodings"] if use["name"] == "known")
        return moved


def measured(lab, move):
    warm_memory(WARM_BYTES)
    before = lab.wan()
    figures = move()
    return figures | {"wan_bytes": lab.wan().since(before).bytes}


def with_godwit(options, link, argv):
    with Lab(options.lab) as lab:
        lab.set_link(*LINKS[link])
        vm = BasedDebian(lab, DebianLoad())
        vm.start()
        argv += vm.qemu_argv()
        for way, host in WAYS.items():
            figures = measured(lab, lambda host=host: by_godwit(vm, host))
            yield way, figures | {"known_bytes": vm.known_bytes}


def with_mirror(options, link, argv, settings):
    image, path = files_of(argv)
    with Lab(options.lab, agents=False) as lab:
        lab.set_link(*LINKS[link])
        for host in HOSTS.values():
            lab.run(host, "sh", "-ec", f"mkdir -p $(dirname {image}) $(dirname {path}); cp {debian() / 'root.qcow2'} {image}; "
                    f"qemu-img create -q -f qcow2 -b {image} -F qcow2 {path}")
        stock = Mirroring(lab, DebianLoad(), argv)
        stock.sync, stock.settings = "top", settings
        try:
            stock.start()
            disk_postgres.start_database(lab)
            for way, host in WAYS.items():
                yield way, measured(lab, lambda host=host: stock.move_all(host))
                stock.end_source()
        finally:
            stock.stop()


def run(options, link, outcomes):
    argv = []
    outcomes.take(NAME, link, "godwit", with_godwit(options, link, argv))
    for system, settings in PEERS.items() if argv else ():
        outcomes.take(NAME, link, system, with_mirror(options, link, argv, settings))
