"""Guests of `./dev bench nat` and `bench mobility` that serve correspondents, or are one: the lab's with programs of Debian.

Who serves has iperf3 or redis, and its kernel's command line says which (bench.serves=redis). A correspondent has the
probe and iperf3: who comes to its port SHELL_PORT says the command that it is to run. Of one that serves the port is
open as soon as it does.
"""

import shutil

from debian_guest import REDIS_PORT, Archive
from network_guest import add_program
from stage import build_directory, guest_image

SHELL_PORT = 7010
IPERF_PORTS = (5201, 5202, 5203, 5204)  # each server has one client
# What iperf3 has written is about to leave: by default a megabyte waits, and over a slow way none is written for seconds.
AS_IT_LEAVES = "echo 65536 > /proc/sys/net/ipv4/tcp_notsent_lowat"
PROBE = "/bin/godwit-lab-probe"
IPERF3 = ("/usr/bin/iperf3", "/bin/iperf3")
PROGRAMS = {"iperf3": IPERF3,
            "redis": ("/usr/bin/redis-check-rdb", "/bin/redis-server")}  # one program, which goes by its name
START = f"""#!/bin/busybox sh
[ ! -x /start-guest-agent ] || /start-guest-agent &
cat > /serve <<'SERVE'
#!/bin/busybox sh
read program first second words || exit
case "$program $first" in
  "ping -c") exec ping $first $second $words ;;
  ping*|iperf3*)  # until who asked for it goes
    $program $first $second $words & cat >/dev/null; kill $!; wait ;;
  busybox*) exec $first $second $words ;;
  *) exec {PROBE} $words ;;  # godwit lab probe WORDS
esac
SERVE
chmod 755 /serve
mkdir -p /tmp  # iperf3's
{AS_IT_LEAVES}
for word in $(cat /proc/cmdline); do
  case $word in
    bench.serves=iperf3)
      ports="{' '.join(map(str, IPERF_PORTS))}"
      for port in $ports; do iperf3 -s -p $port >/dev/null & done ;;
    bench.serves=redis)
      ports={REDIS_PORT}
      redis-server --port {REDIS_PORT} --save "" --protected-mode no --bind 0.0.0.0 >/dev/null & ;;
  esac
done
for port in $ports; do
  until netstat -ltn | grep -q ":$port "; do sleep 0.1; done
done
exec nc -ll -p {SHELL_PORT} -e /serve
"""
AGENT = """#!/bin/busybox sh
[ ! -f /modules/virtio_console.ko ] || insmod /modules/virtio_console.ko
until set -- /dev/vport*p1 && [ -c "$1" ]; do sleep 0.1; done
exec /usr/sbin/qemu-ga -p "$1" -t /run -l /run/qemu-ga.log
"""


def serving_guest(service, with_agent=False):
    """The initrd of one that serves, if the kernel's command line says so; `with_agent`: qemu-guest-agent, too."""
    return image(service, PROGRAMS[service], with_agent=with_agent)


def corresponding_guest():
    """Of one that can be a correspondent."""
    return image("corresponding", (build_directory() / "src" / "lab" / "godwit-lab-probe", PROBE), IPERF3)


def image(name, *programs, with_agent=False):
    directory = build_directory() / "bench-guests"
    directory.mkdir(exist_ok=True)
    path = directory / f"nat-{name}{'-agent' if with_agent else ''}.img"
    with open(path, "wb") as out:
        with open(guest_image(with_agent)[1], "rb") as lab_guest:
            shutil.copyfileobj(lab_guest, out)
        with Archive(out) as archive:
            if with_agent:  # the image's own way to start it is ours now
                archive.add("start-guest-agent", 0o100755, AGENT.encode())
            for program, within in programs:
                add_program(archive, program, within)
            archive.add("start-agent", 0o100755, START.encode())
    return path
