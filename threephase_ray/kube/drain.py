"""What a pod of Ray does before it is stopped: no new work comes, and what is under way may save.

python -m threephase_ray.kube.drain --seconds 90          # a worker
python -m threephase_ray.kube.drain --seconds 90 --job    # a head

It is the pods' preStop hook, so that the time counts against their grace period, and nothing that fails here may hold the stop up.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil

_ASKING = 20  # seconds in which Ray must have taken the wish
_PAUSE = 0.5
_AT_REST = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::SPILL", "ray::RESTORE", "ray::DELETE")
_SUPERVISOR = "JobSupervisor"  # alone, or after the actor's name and before the method that it runs


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code is 0 if all had ended in time."""
    parser = argparse.ArgumentParser(prog="python -m threephase_ray.kube.drain", description="Let work on this node end.")
    parser.add_argument("--seconds", type=float, default=90.0, help="the most that it may take (default: 90)")
    parser.add_argument("--job", action="store_true", help="this is the head: tell the job's own process to save and end")
    parser.add_argument("--root", type=int, default=1, help="process whose descendants are meant (default: 1, all of a container)")
    arguments = parser.parse_args(argv)
    deadline = time.monotonic() + arguments.seconds
    if arguments.job:
        return 0 if stop_jobs(arguments.root, deadline) else 1
    refuse_work(arguments.seconds)
    return 0 if wait_until_idle(arguments.root, deadline) else 1


def refuse_work(seconds: float) -> None:
    """Tell Ray that this node goes, so that it plans no more work here; what Ray answers changes nothing."""
    command = ["ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the pod is being stopped"]
    try:
        subprocess.run([*command, "--deadline-remaining-seconds", str(int(seconds))], timeout=min(seconds, _ASKING), check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"drain: {error}", file=sys.stderr)


def wait_until_idle(root: int, deadline: float) -> bool:
    """Wait until no process below `root` works for Ray any more; false if some still do at the deadline."""
    while busy(root):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def busy(root: int) -> list[psutil.Process]:
    """Processes that run a task or hold an actor; Ray names them so."""
    return [process for process in _titled("ray::", root) if not _title(process).startswith(_AT_REST)]


def stop_jobs(root: int, deadline: float) -> bool:
    """Send SIGTERM to the jobs' own processes, whose way to end is to save; false if some still run at the deadline.

    It is sent past Ray on purpose: a job that Ray stops counts as wanted so, one that ends by itself with an error is tried again.
    """
    processes = drivers(root)
    for process in processes:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    return not psutil.wait_procs(processes, timeout=max(0.0, deadline - time.monotonic()))[1]


def drivers(root: int) -> list[psutil.Process]:
    """The topmost Python process below each supervisor of a job; the shells between them would not pass a signal on."""
    found: dict[int, psutil.Process] = {}  # each once: a second SIGTERM would end a job on the spot
    for supervisor in [process for process in _titled("ray::", root) if _SUPERVISOR in _title(process)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has just ended
            below = [process for process in supervisor.children(recursive=True) if _is_python(process)]
            found |= {process.pid: process for process in below if process.ppid() not in {other.pid for other in below}}
    return list(found.values())


def _titled(start: str, root: int) -> list[psutil.Process]:
    return [process for process in psutil.Process(root).children(recursive=True) if _title(process).startswith(start)]


def _title(process: psutil.Process) -> str:
    """The first word of a process's command line, which a process may set; empty if it is gone or foreign."""
    try:
        return next(iter(process.cmdline()), "")
    except psutil.Error:
        return ""


def _is_python(process: psutil.Process) -> bool:
    return _title(process).rpartition("/")[2].startswith("python")


if __name__ == "__main__":
    sys.exit(main())
