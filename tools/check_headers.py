#!/usr/bin/python3
"""Compiles every header of src/ alone: each must include what it uses. Through ccache, so that only
what changed costs time."""
import argparse
import json
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from layers import ROOT


def include_flags(build):
    """Every include path that any target uses."""
    database = build / "compile_commands.json"
    if not database.exists():
        sys.exit(f"{database} is missing: ./dev build")
    flags = []
    for entry in json.loads(database.read_text()):
        words = shlex.split(entry["command"])
        for word, following in zip(words, words[1:] + [""]):
            flag = [word, following] if word == "-isystem" else [word]
            if (word.startswith("-I") or word == "-isystem") and flag not in flags:
                flags.append(flag)
    return [word for flag in flags for word in flag]


def compile_alone(header, flags, directory):
    name = header.relative_to(ROOT / "src")
    source = directory / name.with_suffix(".cc")
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(f'#include "{name}"\n')
    launcher = ["ccache"] if shutil.which("ccache") else []
    return subprocess.run(
        [*launcher, "g++", "-std=gnu++23", *flags, "-c", str(source), "-o",
         str(source.with_suffix(".o"))], capture_output=True, text=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path)
    parser.add_argument("-j", type=int, default=2)
    arguments = parser.parse_args()
    build = (ROOT / arguments.build).resolve()
    flags = include_flags(build)
    headers = sorted((ROOT / "src").glob("**/*.hh"))
    with ThreadPoolExecutor(arguments.j) as pool:
        results = pool.map(lambda h: compile_alone(h, flags, build / "headers"), headers)
    failed = 0
    for header, result in zip(headers, results):
        if result.returncode != 0:
            failed += 1
            print(f"{header.relative_to(ROOT)} is not self-contained:\n{result.stderr[:2000]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
