"""The lab's guest with two NICs, and what Linux needs to be a bridge or a NAT: components' peers are vms with it.

Its kernel's command line says what it is:

    bench.bridge=10.8.0.3/24                    a bridge of both NICs, with this address
    bench.nat=10.7.0.254/16,10.9.0.254/24       a router from the first to the second, which masquerades
    bench.web=10.30.0.11/24,10.30.0.10          one that asks another: who comes to WEB_PORT talks with the echo of the
                                                guest 10.30.0.10, which is behind the second NIC

Port COUNT_PORT of the first two tells how many MAC addresses, or flows, it knows.
"""

import pathlib
import re

from debian_guest import Archive
from stage import StageError, build_directory, finished, guest_image

COUNT_PORT, WEB_PORT, ECHO_PORT = 7009, 80, 7007
MODULES = ("bridge", "nft_masq", "nft_chain_nat")
NFT = "/usr/sbin/nft"
START = f"""#!/bin/busybox sh
for module in ORDER; do insmod /modules/$module.ko; done
for word in $(cat /proc/cmdline); do
  case $word in
    bench.bridge=*) is=bridge at=${{word#*=}} ;;
    bench.nat=*) is=nat at=${{word#*=}} ;;
    bench.web=*) is=web at=${{word#*=}} ;;
  esac
done
ip link set eth0 up; ip link set eth1 up
port={COUNT_PORT}
case $is in
  bridge)
    brctl addbr br0; brctl addif br0 eth0; brctl addif br0 eth1
    ip link set br0 up; ip address add $at dev br0
    does='echo $(($(wc -c < /sys/class/net/br0/brforward) / 16))' ;;  # struct __fdb_entry
  nat)
    ip address add ${{at%,*}} dev eth0; ip address add ${{at#*,}} dev eth1
    echo 1 > /proc/sys/net/ipv4/ip_forward
    cd /proc/sys/net/netfilter
    echo 65536 > nf_conntrack_buckets; echo 262144 > nf_conntrack_max; echo 3600 > nf_conntrack_udp_timeout
    {NFT} 'add table ip t; add chain ip t c {{ type nat hook postrouting priority 100; }};
      add rule ip t c oifname eth1 masquerade'
    does='cat /proc/sys/net/netfilter/nf_conntrack_count' ;;
  web)
    ip address add ${{at%,*}} dev eth1
    port={WEB_PORT} does="exec nc ${{at#*,}} {ECHO_PORT}" ;;
esac
printf '#!/bin/busybox sh\\n%s\\n' "$does" > /serve
chmod 755 /serve
exec nc -ll -p $port -e /serve
"""


def network_guest():
    """The initrd."""
    directory = build_directory() / "bench-guests"
    directory.mkdir(exist_ok=True)
    image = directory / "network.img"
    with open(image, "wb") as out:
        out.write(guest_image()[1].read_bytes())
        with Archive(out) as archive:
            add_files(archive)
    return image


def add_files(archive):
    modules = modules_in_order()
    for path in modules:
        archive.add(f"modules/{path.name}", 0o100644, path.read_bytes())
    archive.add("start-agent", 0o100755, START.replace("ORDER", " ".join(path.stem for path in modules)).encode())
    add_program(archive, NFT, NFT)


def add_program(archive, program, path):
    """As `path` of the guest, with the libraries that it needs."""
    for library in re.findall(r"/\S+", finished(["ldd", program])):
        add_file(archive, library, library)
    add_file(archive, program, path)


def add_file(archive, source, path):
    for parent in reversed(pathlib.PurePath(path).relative_to("/").parents[:-1]):
        archive.add(str(parent), 0o040755)  # again does no harm
    archive.add(path.lstrip("/"), 0o100755, pathlib.Path(source).read_bytes())


def modules_in_order():
    """Each after those that it needs, of the kernel that the lab's guest has: the newest of its kind here."""
    kernels = pathlib.Path("/lib/modules").glob("*-cloud-amd64")
    newest = max(kernels, key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)], default=None)
    if newest is None:
        raise StageError("there is no linux-image-cloud-amd64: run ./dev setup")
    paths = {}
    for module in MODULES:
        for line in finished(["modprobe", "-S", newest.name, "--show-depends", module]).splitlines():
            if line.startswith("insmod "):
                paths[pathlib.Path(line.split()[1])] = None
    return list(paths)
