"""In the client's host: PostgreSQL's pgbench, until a line comes; then what it saw, as JSON.

    pgbench_load.py PGBENCH ADDRESS SCALE RUN CLIENTS RATE

A transaction is pgbench's own, TPC-B's, with a row in `ledger` that tells the run, the client, and the how many-eth it is of this
client's. All of it is one query, so that the way to the server is one round trip. {"status": pgbench's, "said": its standard
error, "commits": [[client, when it was answered in seconds since 1970, how many it took], ...]}
"""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile

TRANSACTION = r"""
\set number :number + 1
\set aid random(1, 100000 * :scale)
\set bid random(1, :scale)
\set tid random(1, 10 * :scale)
\set delta random(-5000, 5000)
BEGIN\;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid\;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid\;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid\;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid\;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP)\;
INSERT INTO ledger VALUES (:run, :client_id, :number)\;
END;
"""
LONGEST_S = 3600


def commits_of(log):
    """Of pgbench -l -R, "client number us script seconds microseconds lag-us": a line when the answer has come. The time is from
    when the transaction was due, which it may have been for long when its client came to it: that is the lag."""
    for line in log.read_text().splitlines():
        client, _, took_us, _, seconds, microseconds, lag_us = line.split()
        yield int(client), int(seconds) + int(microseconds) / 1e6, (int(took_us) - int(lag_us)) / 1e6


def main():
    pgbench, address, scale, run, clients, rate = sys.argv[1:]
    with tempfile.TemporaryDirectory() as work:
        script = pathlib.Path(work) / "transaction.sql"
        script.write_text(TRANSACTION)
        process = subprocess.Popen(
            [pgbench, "-h", address, "-U", "postgres", "-n", "-f", script, "-D", f"scale={scale}", "-D", f"run={run}",
             "-D", "number=0", "-c", clients, "-R", rate, "-T", str(LONGEST_S), "-l", "postgres"],
            cwd=work, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        sys.stdin.readline()
        process.send_signal(signal.SIGALRM)  # as if -T were over: each client ends its transaction
        _, said = process.communicate()
        commits = sorted((commit for log in pathlib.Path(work).glob("pgbench_log.*") for commit in commits_of(log)),
                         key=lambda commit: commit[1])
    print(json.dumps({"status": process.returncode, "said": said, "commits": commits}))


if __name__ == "__main__":
    main()
