"""The case apply-1000 of `./dev bench fabric`: a topology of 1,000 ports and their wires, made and looked at again.

    client: 334 ports -- 6 switches     e1: 333 ports -- 6 switches     w1: 333 ports -- 6 switches

Each port is wired to one of a switch of another host, two thirds of them over the WAN (40 ms RTT): 1,000 wires, and
1,000 ports of switches. `make`: `godwit apply` of all of it; `again`: of what is there; `prune`: of nothing.
"""

import statistics
import time

from stage import wait_until

HOSTS = ("client", "e1", "w1")
PORTS, OF_SWITCH = 1000, 60
LIMITS = {"make": 5.0, "again": 0.5}
CASES = ("make", "again", "prune")


def topology():
    """As YAML."""
    names = {host: [f"p{i}" for i in range(PORTS) if HOSTS[i % 3] == host] for host in HOSTS}
    text, wires = "components:\n", []
    for number, host in enumerate(HOSTS):
        wired = names[HOSTS[(number + 1) % 3]]  # ports of the next host
        for first in range(0, len(wired), OF_SWITCH):
            switch, ports = f"sw-{host}-{first}", wired[first:first + OF_SWITCH]
            text += f"  {switch}: {{type: switch, host: {host}, ports: [{', '.join(ports)}]}}\n"
            wires += [f"  - [{port}, {switch}-{port}]\n" for port in ports]
    text += "ports:\n" + "".join(f"  {port}: {{host: {host}}}\n" for host in HOSTS for port in names[host])
    return text + "wires:\n" + "".join(wires)


def seconds(lab, *words):
    begun = time.monotonic()
    lab.run("e1", "godwit", *words)
    return time.monotonic() - begun


def measure(lab, rounds):
    """Rows of the median; prints them."""
    lab.run("e1", "sh", "-c", "cat > /tmp/many.yaml <<'END'\n" + topology() + "END\necho 'name: many' > /tmp/none.yaml")
    wait_until(lambda: all(host["state"] != "down" for host in lab.ask("e1", "host", "ls")), 20, "all sessions")
    took = {case: [] for case in CASES}
    for _ in range(rounds):
        took["make"].append(seconds(lab, "apply", "/tmp/many.yaml"))
        took["again"].append(seconds(lab, "apply", "/tmp/many.yaml"))
        took["prune"].append(seconds(lab, "apply", "/tmp/none.yaml", "--prune"))
    rows = []
    for case in CASES:
        value = statistics.median(took[case])
        rows.append({"bench": "fabric", "case": "apply-1000", "system": f"godwit-{case}", "metric": "seconds",
                     "value": value, "unit": "s"})
        print(f"  {'apply-1000':<14} {case:<13} {value:8.3f} s", flush=True)
    return rows


def judge(rows):
    value = {row["system"].removeprefix("godwit-"): row["value"] for row in rows if row["case"] == "apply-1000"}
    kept = True
    for case, limit in LIMITS.items():
        kept = kept and value[case] <= limit
        print(f"  {'met' if value[case] <= limit else 'MISSED'}: apply of 1,000 ports and wires, {case}: "
              f"{value[case]:.2f} s, to reach {limit}", flush=True)
    return kept
