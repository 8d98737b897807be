"""Two machines in one: network namespaces with an address each, on a wire between them. It takes root; else both are this machine."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Where a node lives: what stands before its commands, its address, and what its processes must be told."""

    prefix: tuple[str, ...]
    address: str
    environment: tuple[tuple[str, str], ...] = ()


IP = shutil.which("ip") or "ip"
HERE = Place((), "127.0.0.1")


@contextlib.contextmanager
def places(word: str) -> Iterator[tuple[Place, Place]]:
    """Two places for nodes: namespaces named after `word` where the machine allows them, removed at the end."""
    names = [f"{word}-{side}" for side in "ab"]
    if not allowed(word):
        yield HERE, HERE
        return
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        found = [joined(name, f"10.77.0.{number}") for number, name in enumerate(names, start=1)]
        yield found[0], found[1]
    finally:
        for name in names:
            subprocess.run([IP, "netns", "del", name], check=False, capture_output=True)


def allowed(word: str) -> bool:
    """Whether namespaces can be made here: asked by making one."""
    if not Path(IP).is_file() or os.geteuid() != 0:
        return False
    tried = subprocess.run([IP, "netns", "add", f"{word}-try"], check=False, capture_output=True)
    subprocess.run([IP, "netns", "del", f"{word}-try"], check=False, capture_output=True)
    return tried.returncode == 0


def joined(name: str, address: str) -> Place:
    """A namespace whose end of the wire is `eth0` with `address`."""
    ip("link", "set", name, "netns", name)
    inside = (IP, "netns", "exec", name)
    ip("-n", name, "link", "set", name, "name", "eth0")
    ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        ip("-n", name, "link", "set", device, "up")
    return Place(inside, address, (("GLOO_SOCKET_IFNAME", "eth0"),))


def ip(*words: str) -> None:
    """One command of iproute2."""
    subprocess.run([IP, *words], check=True, capture_output=True)
