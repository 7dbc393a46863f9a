#!/usr/bin/python3
"""Fails on an include that the link graph does not allow, on a link that the layers do not allow,
and on a system header in a library that must stay pure."""
import re
import sys
from pathlib import Path

from layers import IMPURE_HEADERS, MAY_LINK, PURE, ROOT, closure, targets

INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"/]+)/[^"]*"|<([^>]+)>)', re.MULTILINE)


def layer_of(library, found):
    if library not in found:
        return library
    directory = found[library].directory
    inside = directory.is_relative_to(ROOT / "src")
    return directory.relative_to(ROOT / "src").parts[0] if inside else directory.name


def check_links(found):
    for target in found.values():
        layer = target.directory.name
        if not target.library or layer not in MAY_LINK or target.directory.parent != ROOT / "src":
            continue
        for link in sorted(target.links):
            if layer_of(link, found) not in MAY_LINK[layer] | {layer}:
                yield f"src/{layer}/CMakeLists.txt: {target.name} must not link to {link}"


def targets_of(file, found):
    """Who compiles `file`; a header goes with its .cc, else with all targets of its directory."""
    for name in (file, file.with_suffix(".cc")):
        named = [target for target in found.values() if name in target.files]
        if named:
            return named
    return [target for target in found.values() if target.directory == file.parent]


def includes(file):
    """(line, "directory/", <system header>) of each include; one of the two is None."""
    text = file.read_text()
    for match in INCLUDE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match[1], match[2]


def check_includes(found):
    directories = {path.name for path in (ROOT / "src").iterdir() if path.is_dir()}
    for file in sorted(f for top in ("src", "test", "bench") for f in (ROOT / top).glob("**/*")):
        if file.suffix not in (".cc", ".hh"):
            continue
        relative = file.relative_to(ROOT)
        allowed = {relative.parts[1]} if relative.parts[0] == "src" else set()
        for target in targets_of(file, found):
            allowed |= {layer_of(library, found) for library in closure(found, target.name)}
        for line, directory, _ in includes(file):
            if directory in directories - allowed:
                yield f"{relative}:{line}: includes {directory}/, which its target does not link to"


def check_purity(found):
    """System headers in what a pure library compiles: its sources and the headers beside them."""
    for target in found.values():
        if not target.library or target.directory.name not in PURE or "test" in target.name:
            continue
        for source in target.files:
            for file in filter(Path.exists, (source, source.with_suffix(".hh"))):
                for line, _, system in includes(file):
                    if system and IMPURE_HEADERS.match(system):
                        yield (f"{file.relative_to(ROOT)}:{line}: <{system}> in a library that "
                               "does no I/O")


def main():
    found = targets()
    problems = [*check_links(found), *check_includes(found), *check_purity(found)]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
