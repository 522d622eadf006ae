"""Runs a command so that it cannot leave this machine, and says where it listened and what it tried to reach.

Every Python process of the command gets an audit hook (`sitecustomize`): who connects or looks a name up elsewhere
than on loopback is refused and written down.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path

HOOK = """
import os, socket, sys

HERE = ("", "localhost", "0.0.0.0", "::", "::1", "ip6-localhost", socket.gethostname())

def guard(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        address = args[:1]
    else:
        return
    if not isinstance(address, tuple) or address[0] is None:
        return  # a socket in the file system, or one that is connected
    host = address[0].decode() if isinstance(address[0], bytes) else str(address[0])
    if host not in HERE and not host.startswith(("127.", "::ffff:127.")):
        with open({log!r}, "a") as file:
            print(event, address, sys.argv[:3], file=file)
        raise OSError(f"{{host}} is not this machine")

sys.addaudithook(guard)
"""


def guard(folder: Path) -> tuple[dict[str, str], Path]:
    """The environment that puts the hook into every Python process, and the file that attempts are written to."""
    log = folder / "attempts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(HOOK.format(log=str(log)))
    paths = [str(folder), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}, log


def descendants(pid: int) -> set[int]:
    """`pid`, its children, theirs and so on, as they stand now."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = {pid}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return found


def listening(pids: set[int]) -> set[tuple[str, str]]:
    """The (process, address) of all TCP sockets on which these processes listen."""
    sockets = dict(_listeners())
    found = set()
    for pid in pids:
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        found |= {(name, sockets[link]) for link in links if link in sockets}
    return found


def is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


def _listeners() -> Iterator[tuple[str, str]]:
    """`socket:[inode]` and address of every TCP socket of this machine that listens."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                yield f"socket:[{fields[9]}]", str(_address(fields[1].partition(":")[0]))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The kernel writes words of four bytes, the least significant byte first."""
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(words))
