"""Machines in one: network namespaces with an address each, on one switch. It takes root; else all of them are this machine."""

import contextlib
import os
import shutil
import string
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
def places(word: str, count: int = 2) -> Iterator[list[Place]]:
    """Places for nodes: namespaces named after `word` where the machine allows them, removed at the end. The switch is in the first one."""
    names = [f"{word}-{letter}" for letter in string.ascii_lowercase[:count]]
    if not allowed(word):
        yield [HERE] * count
        return
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "eth0", "type", "bridge")
        for number, name in enumerate(names[1:]):
            ip("-n", names[0], "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", names[0], "link", "set", f"port{number}", "master", "eth0", "up")
        yield [joined(name, f"10.77.0.{number}") for number, name in enumerate(names, start=1)]
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
    """A namespace whose `eth0` gets the `address`."""
    inside = (IP, "netns", "exec", name)
    ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        ip("-n", name, "link", "set", device, "up")
    return Place(inside, address, (("GLOO_SOCKET_IFNAME", "eth0"),))


def ip(*words: str) -> None:
    """One command of iproute2."""
    subprocess.run([IP, *words], check=True, capture_output=True)
