"""The layers of design 3, read from the CMake files: which target owns which file, and which
libraries it may include. Used by the check_* tools beside it."""
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What each library may link to. A directory that is not named here may link to everything.
MAY_LINK = {
    "base": set(),
    "os": {"base"},
    "crypto": {"base"},
    "wire": {"base", "crypto"},
    "net": {"base", "wire"},
    "stream": {"base", "crypto"},
    "codec": {"base", "crypto", "stream"},
    "translate": {"base"},
    "session": {"base", "os", "crypto"},
    "http": {"base", "os"},
    "qemu": {"base", "os"},
    "store": {"base", "os"},
    "etcd": {"base", "os"},
    "doctor": {"base", "os", "crypto", "http", "qemu"},
    "migrate": {"base"},
    "nbd": {"base"},
    "disk": {"base", "crypto"},
    "manual": {"base"},
    "fabric": {"base", "os", "wire", "net"},
    "libvirt": {"base"},
    "topology": {"base"},
}
# No syscalls, no clock, no threads, no randomness: time, bytes and a sink are given.
PURE = {"wire", "net", "stream", "codec", "migrate", "nbd", "disk", "translate", "topology"}
IMPURE_HEADERS = re.compile(
    r"(sys/|unistd\.h|fcntl\.h|poll\.h|arpa/|thread|mutex|random|fstream|filesystem)")


@dataclass
class Target:
    name: str
    directory: Path
    library: bool
    files: list = field(default_factory=list)
    links: set = field(default_factory=set)


def _calls(text):
    """(command, [words]) of each call; comments are gone, nesting is not needed here."""
    text = re.sub(r"#.*", "", text)
    for match in re.finditer(r"(\w+)\s*\(([^()]*)\)", text):
        yield match[1], match[2].split()


def _links(words):
    return {m[1] for w in words if (m := re.fullmatch(r"godwit(?:::|_)(\w+)", w))} - {"options"}


def targets():
    found = {}
    suffixes = {"godwit_test": "_test", "godwit_fuzz": "_fuzz"}
    makers = {"godwit_library", "godwit_test", "godwit_fuzz", "add_executable", "add_library"}
    for cmake in sorted(ROOT.glob("**/CMakeLists.txt")):
        if "build" in cmake.relative_to(ROOT).parts:
            continue
        for command, words in _calls(cmake.read_text()):
            if command in makers and words:
                name = (words[0] + suffixes.get(command, "")).removeprefix("godwit_")
                target = Target(name, cmake.parent, command in ("godwit_library", "add_library"))
                target.files = [cmake.parent / w for w in words if w.endswith(".cc")]
                target.links = _links(words[1:])
                found[name] = target
            elif command == "target_link_libraries" and words:
                name = words[0].removeprefix("godwit_")
                if name in found:
                    found[name].links |= _links(words[1:])
    return found


def closure(all_targets, name):
    """The libraries that `name` may include: itself and all that it links to."""
    seen, todo = set(), [name]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        todo += all_targets[current].links if current in all_targets else ()
    return seen
