#!/usr/bin/python3
"""Reports the sizes that house style 3 speaks of. A report, not a gate: a long file is a place to
look at."""
import statistics
import sys

from layers import ROOT

HEADER_LINES, SOURCE_LINES, FUNCTION_LINES = 200, 400, 70


def functions(lines):
    """(first line, length) of what stands between braces at the left margin."""
    start = None
    for number, line in enumerate(lines, 1):
        if start is None and line.endswith("{") and not line.startswith(
                ("namespace", "struct", "class", "enum", "union", " ", "#", "}", "extern")):
            start = number
        elif start is not None and line.startswith("}"):
            yield start, number - start + 1
            start = None


def main():
    sizes = {".cc": [], ".hh": []}
    remarks = []
    for file in sorted((ROOT / "src").glob("**/*")):
        if file.suffix not in sizes:
            continue
        lines = file.read_text().splitlines()
        name = file.relative_to(ROOT)
        sizes[file.suffix].append(len(lines))
        if len(lines) > (HEADER_LINES if file.suffix == ".hh" else SOURCE_LINES):
            remarks.append(f"  {len(lines):4} lines  {name}")
        remarks += [f"  {length:4} lines  {name}:{first} (one function)"
                    for first, length in functions(lines) if length > FUNCTION_LINES]
    for suffix, what in ((".hh", "headers"), (".cc", "sources")):
        if sizes[suffix]:
            print(f"{len(sizes[suffix])} {what}, median {statistics.median(sizes[suffix]):.0f} lines")
    print("\n".join(remarks), end="\n" if remarks else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
