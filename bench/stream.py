#!/usr/bin/python3
"""The encoder alone, one core: what it leaves of recorded migration streams, and how fast, beside what
`zstd` and `lz4` make of the same bytes.

Streams are QEMU's own: --corpus FILE, or recorded (`godwit debug stream record`) of `bench memory`'s guests at
`idle`, `redis` and `compile`, and then removed, as they are a guest's memory. Rows, by system:

  godwit-pages    the encodings of pages: zero, same, delta, copy
  godwit-zstd-N   and zstd at level N after them; a move begins with 2
  zstd-3-long27   in the library, as Godwit uses it
  zstd, lz4       the programs, whose commands are printed
  bound           each page once, at zstd -19 --long=27 (not with --quick)

GB are of the stream, in a second of CPU time. Exit status 1 if anything that was decoded is not the stream.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from memory import Scale, at_work  # noqa: E402
from stage import VM, Godwit, Lab, StageError, build_directory, performed, write_rows  # noqa: E402

WORKLOADS, QUICK_WORKLOADS = ("idle", "redis", "compile"), ("idle",)
ROUNDS = 4
RECORDING = "/var/lib/godwit/guest.stream"  # in the lab's host
LEVELS, QUICK_LEVELS = (2, 3, 5, 9), (2,)
# Compresses, and decompresses; each reads standard input.
PROGRAMS = {
    "zstd": (("zstd", "-3", "--long=27", "--single-thread", "-c"), ("zstd", "-d", "--long=27", "-c")),
    "lz4": (("lz4", "-1", "-c"), ("lz4", "-d", "-c")),
}
UNITS = {"encoded_bytes": "bytes", "ratio": "", "encode_gb_per_s": "GB/s", "decode_gb_per_s": "GB/s",
         "pages": "pages", "bytes": "bytes"}
GB = 1e9


def say(text=""):
    print(text, flush=True)


def cpu_s(argv, source, sink):
    """CPU time of the program, from a file into one."""
    with open(source, "rb") as read, open(sink, "wb") as write:
        process = subprocess.Popen(argv, stdin=read, stdout=write)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise StageError(f"{shlex.join(argv)} ended with status {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def same(one, other):
    return subprocess.run(("cmp", "--silent", one, other), check=False).returncode == 0


def program_coding(name, corpus, directory):
    """As the tool tells of its codings."""
    compress, decompress = PROGRAMS[name]
    small, again = directory / "small", directory / "again"
    say(f"  {shlex.join(compress)} < {corpus}; {shlex.join(decompress)}")
    encode_s, decode_s = cpu_s(compress, corpus, small), cpu_s(decompress, small, again)
    if not same(corpus, again):
        raise StageError(f"{name}: what was decoded is not {corpus}")
    size, left = corpus.stat().st_size, small.stat().st_size
    return {"system": name, "encoded_bytes": left, "ratio": size / left,
            "encode_gb_per_s": size / encode_s / GB, "decode_gb_per_s": size / decode_s / GB}


def system_of(name):
    """Of what the tool calls a coding."""
    if name.startswith("unique"):
        return "bound"
    if name.startswith("pages"):
        return name.replace("pages, zstd -", "godwit-zstd-").replace("pages", "godwit-pages")
    return name.replace(" --", "-").replace(" -", "-").replace("=", "")


def measure(corpus, levels, bound):
    words = [str(build_directory() / "bin" / "godwit"), "debug", "stream", "bench", str(corpus), "--json"]
    words += [word for level in levels for word in ("--level", str(level))]
    say(f"\n{corpus}\n  {shlex.join(words + (['--bound'] if bound else []))}")
    done = subprocess.run(words + (["--bound"] if bound else []), check=False, stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise StageError(f"debug stream bench ended with status {done.returncode}")
    told = json.loads(done.stdout)
    codings = [{"system": system_of(coding.pop("name")), **coding} for coding in told["codings"]]
    with tempfile.TemporaryDirectory(dir=build_directory()) as directory:
        codings += [program_coding(name, corpus, pathlib.Path(directory)) for name in PROGRAMS]
    return told, codings


def rows_of(case, told, codings):
    def row(system, metric, value, unit):
        return {"bench": "stream", "case": case, "system": system, "metric": metric, "value": value, "unit": unit}

    rows = [row(coding["system"], metric, value, UNITS[metric])
            for coding in codings for metric, value in coding.items() if metric in UNITS and value is not None]
    rows += [row("godwit-pages", f"{use['name']}_{metric}", use[metric], UNITS[metric])
             for use in told["encodings"] for metric in ("pages", "bytes", "encoded_bytes")]
    return rows


def show(told, codings):
    peer = next(coding for coding in codings if coding["system"] == "zstd")
    say(f"  {told['bytes'] / 1e6:.1f} MB, {told['rounds']} rounds ended, {told['pages']} pages, "
        f"{told['zero_pages']} zero pages")
    say(f"    {'':<16}{'MB left':>9}{'ratio':>7}{'of zstd':>9}{'encodes':>9}{'decodes':>9}  GB/s")
    for coding in codings:
        decodes = f"{coding['decode_gb_per_s']:.2g}" if coding["decode_gb_per_s"] else "-"
        say(f"    {coding['system']:<16}{coding['encoded_bytes'] / 1e6:>9.1f}{coding['ratio']:>7.2f}"
            f"{coding['encoded_bytes'] / peer['encoded_bytes']:>9.3f}{coding['encode_gb_per_s']:>9.2g}{decodes:>9}")


def record(workload, scale, lab_name, corpus):
    """A guest at work, into a file that is ours alone; the lab's host has another file system."""
    say(f"\nrecording a guest of {scale.memory} at {workload}")
    with Lab(lab_name) as lab:
        godwit = Godwit(lab, scale.load(workload))
        godwit.start()
        with at_work(lab, scale, workload):
            say("  " + lab.run(godwit.host, "godwit", "debug", "stream", "record", VM, RECORDING,
                               "--rounds", str(ROUNDS)).strip())
        with os.fdopen(os.open(corpus, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            if lab.start(godwit.host, "cat", RECORDING, stdout=out).wait() != 0:
                raise StageError(f"{RECORDING} of {godwit.host} could not be read")


@contextlib.contextmanager
def corpora(options):
    """Given, or recorded one after the other."""
    if options.corpus:
        yield iter(options.corpus)
        return
    scale = Scale(memory="512MiB", redis_mib=64) if options.quick else Scale()
    with tempfile.TemporaryDirectory(dir=build_directory()) as directory:
        def recorded():
            for workload in options.workload or (QUICK_WORKLOADS if options.quick else WORKLOADS):
                corpus = pathlib.Path(directory) / f"{workload}.stream"
                record(workload, scale, options.lab, corpus)
                yield corpus
                corpus.unlink()
        yield recorded()


def run(options):
    rows = []
    with corpora(options) as found:
        for corpus in found:
            told, codings = measure(corpus, QUICK_LEVELS if options.quick else LEVELS, not options.quick)
            show(told, codings)
            rows += rows_of(corpus.stem, told, codings)
            if options.json:
                write_rows(options.json, rows)
    return True  # anything that was not exact has failed


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench stream", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one level, no bound; an idle guest of 512 MiB")
    parser.add_argument("--json", metavar="FILE", help="write the figures as rows")
    parser.add_argument("--corpus", metavar="FILE", type=pathlib.Path, action="append",
                        help="a recorded stream instead; may be repeated")
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="only this one; may be repeated")
    parser.add_argument("--lab", default="bench-stream", metavar="NAME", help="the lab's name")
    return parser.parse_args()


def main():
    options = arguments()
    return performed("bench stream", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
