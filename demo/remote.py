#!/usr/bin/python3
"""People at work from afar: an operator on another host moves a vm, a viewer is refused, another
tenant's operator sees nothing, and the audit log tells who did what.

    site east                                 site west
      e1: godwitd, vm web --+               +-- w1: godwitd
      client: the people ---+==== WAN ======+

Exit status: 0 all of it came out as it must, 1 something did not, 130 Ctrl-C.
"""

import json
import sys

from stage import VM, Godwit, Lab, Load, StageError, finished, performed

PEOPLE = {"ann": ("operator", None), "vera": ("viewer", None), "rita": ("operator", "red")}


def say(text=""):
    print(text, flush=True)


def certify(lab, name, role, tenant):
    of = ["--tenant", tenant] if tenant else []
    words = ["user", "add", name, "--role", role, *of, "--ttl", "1h"]
    say(f"e1# godwit {' '.join(words)}")
    pem = lab.run("e1", "godwit", *words, "--out", "-")
    lab.run("client", "sh", "-c", 'umask 077; cat >"/tmp/$1.pem"', "sh", name, told=pem)


def as_person(lab, name, *words, ok=(0,)):
    """A command of a person on `client`, as it looks to them."""
    say(f"\n{name}@client$ godwit -H e1 {' '.join(words)}")
    argv = lab.command("client", "godwit", "-H", "e1", "--identity", f"/tmp/{name}.pem", *words)
    # Refusals are told on standard error, and are what is to be seen here.
    out = finished(["sh", "-c", 'exec "$@" 2>&1', "sh", *argv], limit_s=120, ok=ok)
    say(out.rstrip())
    return out


def must(condition, what):
    if not condition:
        raise StageError(f"this must not be: {what}")


def show(lab):
    Godwit(lab, Load(memory="128MiB", dirty="5mbit", working_set="8MiB")).start()
    say("vm web runs on e1; on e1, which founded the fleet, root certifies three people:\n")
    for name, (role, tenant) in PEOPLE.items():
        certify(lab, name, role, tenant)
    must(VM in as_person(lab, "ann", "vm", "ls"), "ann does not see the vm")
    must("no vms" in as_person(lab, "rita", "vm", "ls"), "tenant red sees a vm of tenant default")
    must(VM in as_person(lab, "vera", "vm", "ls"), "vera does not see the vm")
    refused = as_person(lab, "vera", "migrate", VM, "--to", "w1", ok=(1,))
    must("is a viewer" in refused, "vera is not told why")
    absent = as_person(lab, "rita", "migrate", VM, "--to", "w1", ok=(3,))
    must("no running vm" in absent, "rita learns that there is such a vm")
    moved = as_person(lab, "ann", "migrate", VM, "--to", "w1", "--max-downtime", "1s")
    must("moved from e1 to w1" in moved, "the vm has not moved")
    say("\ne1# godwit user rm ann")
    lab.run("e1", "godwit", "user", "rm", "ann")
    must("revoked" in as_person(lab, "ann", "vm", "ls", ok=(1,)), "ann is still let in")
    say("\ne1# godwit audit ls")
    say(lab.run("e1", "godwit", "audit", "ls").rstrip())
    audit = json.loads(lab.run("e1", "godwit", "audit", "ls", "--json"))
    must(any(e["who"] == "ann" and e["did"] == "migration done" for e in audit), "no record of it")


def main():
    def act():
        with Lab("demo-remote") as lab:
            show(lab)
        say("\neverything came out as it must")
        return True
    return performed("demo", act)


if __name__ == "__main__":
    sys.exit(main())
