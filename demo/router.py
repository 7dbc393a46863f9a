#!/usr/bin/python3
"""A home network of components: its desk gets an address, goes out through a NAT, serves the outside by a forward, and is
guarded by a firewall.

Exit status: 0 every promise was kept, 1 one was broken or something failed, 2 usage, 130 Ctrl-C.
"""

import subprocess
import sys

from stage import Lab, all_kept, demo, wait_until

WEB = ("import http.server, sys\n"
       "class Handler(http.server.BaseHTTPRequestHandler):\n"
       "    def do_GET(self):\n"
       "        body = (sys.argv[1] + ' serves ' + self.client_address[0]).encode()\n"
       "        self.send_response(200)\n"
       "        self.send_header('Content-Length', str(len(body)))\n"
       "        self.end_headers()\n"
       "        self.wfile.write(body)\n"
       "    def log_message(self, *words): pass\n"
       "http.server.ThreadingHTTPServer(('', 80), Handler).serve_forever()\n")
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=3).read().decode())"
TAKE = "#!/bin/sh\n[ $1 = bound ] && ip address replace $ip/$mask dev desk && ip route replace 192.0.2.0/24 via $router\nexit 0\n"


def say(text=""):
    print(text, flush=True)


def introduce():
    say("""
    client:  desk -- fw (firewall) -- home (switch) -- gw (NAT) ====== 40 ms ====== w1:  outside, 192.0.2.9
                                         |
                                       dhcp1

  desk    gets 10.7.0.x of dhcp1, and reaches the outside as 192.0.2.1, gw's address there
  all components stand at e1; the outside is at another site
""")


def build(lab):
    """The components, and what they are joined by."""
    for words in (
            ("component", "add", "gw", "--type", "nat", "--port", "inside,address=10.7.0.1/24",
             "--port", "outside,address=192.0.2.1/24", "--forward", "192.0.2.1,protocol=tcp,ports=80,to=10.7.0.50"),
            ("component", "add", "home", "--port", "gw", "--port", "dhcp", "--port", "fw"),
            ("component", "add", "dhcp1", "--type", "dhcp", "--set", "address=10.7.0.2/24",
             "--network", "10.7.0.0/24,range=10.7.0.50-10.7.0.50,router=10.7.0.1"),
            ("component", "add", "fw", "--type", "firewall", "--default", "allow"),
            ("connect", "gw-inside", "home-gw"),
            ("connect", "dhcp1-net", "home-dhcp"),
            ("connect", "fw-outside", "home-fw")):
        say(f"  e1$ godwit {' '.join(words)}")
        lab.run("e1", "godwit", *words)
    lab.run("client", "godwit", "port", "add", "desk", "--uplink", "--interface", "desk")
    lab.run("client", "ip", "link", "set", "desk", "up")
    lab.run("client", "godwit", "connect", "desk", "e1/fw-inside")
    wait_until(lambda: any(host["name"] == "e1" and host["state"] == "up" for host in lab.ask("w1", "host", "ls")),
               20, "w1's session with e1")
    lab.run("w1", "godwit", "port", "add", "outside", "--uplink", "--address", "192.0.2.9/24")
    lab.run("w1", "godwit", "connect", "outside", "e1/gw-outside")


def serve(lab, host, name):
    process = lab.start(host, "/usr/bin/python3", "-c", WEB, name)
    wait_until(lambda: lab.run(host, "ss", "-Htln", "sport = 80").strip(), 20, "a web server")
    return process


def fetch(lab, host, address):
    """What the server says, or nothing."""
    process = lab.start(host, "/usr/bin/python3", "-c", FETCH, f"http://{address}/", stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL)
    return process.communicate(timeout=30)[0].strip()


def show(options):
    with Lab(options.lab) as lab:
        introduce()
        build(lab)
        lab.run("client", "sh", "-c", 'printf %s "$1" > /tmp/take; chmod 755 /tmp/take', "sh", TAKE)
        lab.run("client", "busybox", "udhcpc", "-i", "desk", "-f", "-q", "-n", "-t9", "-T1", "-s", "/tmp/take")
        say("\n  e1$ godwit component leases dhcp1\n" + lab.run("e1", "godwit", "component", "leases", "dhcp1"))
        servers = [serve(lab, "w1", "outside"), serve(lab, "client", "desk")]
        try:
            out, back = fetch(lab, "client", "192.0.2.9"), fetch(lab, "w1", "192.0.2.1")
            say(f"  desk asks 192.0.2.9: {out}\n  outside asks 192.0.2.1: {back}\n")
            say("  e1$ godwit component flows gw\n" + lab.run("e1", "godwit", "component", "flows", "gw"))
            rules = ("--rule", "allow,in=inside", "--rule", "reject,protocol=tcp,ports=80,log", "--default", "drop")
            say(f"  e1$ godwit component set fw {' '.join(rules)}")
            lab.run("e1", "godwit", "component", "set", "fw", *rules)
            still, refused = fetch(lab, "client", "192.0.2.9"), fetch(lab, "w1", "192.0.2.1")
            say(f"  desk asks 192.0.2.9: {still}\n  outside asks 192.0.2.1: {refused or 'refused'}\n")
            say("  e1$ godwit component rules fw\n" + lab.run("e1", "godwit", "component", "rules", "fw"))
        finally:
            for server in servers:
                server.kill()
                server.wait()
        hidden = "outside serves 192.0.2.1"
        return all_kept([
            ("addresses that the desk did not get", int(lab.ask("e1", "component", "leases", "dhcp1")[0]["state"] != "bound"), 0),
            ("times that the outside saw the desk's own address", [out, still].count(hidden) != 2, 0),
            ("forwarded requests without an answer", int(back != "desk serves 192.0.2.9"), 0),
            ("requests that the firewall let pass", int(refused != ""), 0),
        ])


if __name__ == "__main__":
    sys.exit(demo("router", __doc__, show))
