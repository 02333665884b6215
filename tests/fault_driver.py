"""Run one command with one fault, in a process that may be killed.

Where a fault has to strike at a certain moment, it is planted here; all else is the real thing.
Processes are forked from one that has imported everything, so that each takes a fraction of a
second.
"""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile

import numpy as np

from vcc_helpers import cli
from vcc_helpers.datasets import _simulate
from vcc_helpers.scoring import score  # noqa: F401  what commands import when they start
from vcc_helpers.stream import _kernels, blocks, sort  # noqa: F401
from vcc_helpers.submission import check, pack  # noqa: F401


def at_the_last_step(act):
    """Strike when the finished file is about to get its name."""
    os.replace = os.rename = lambda *_, **__: act()


def while_reading(act):
    """Strike after the first block of cells was read, or drawn."""
    read, draw = blocks.ahead, _simulate.draw_counts

    def ahead(function, arguments, **kw):
        for number, found in enumerate(read(function, arguments, **kw)):
            if number == 0:
                act()
            yield found

    def drawn(*words, **kw):
        act()
        return draw(*words, **kw)

    blocks.ahead, _simulate.draw_counts = ahead, drawn


def strike(how, fault):
    """Plan to raise an error, or to send a signal, at that moment."""

    def act():
        if isinstance(fault, Exception):
            raise fault
        os.kill(os.getpid(), fault)

    return lambda: how(act)


def hung_up_twice():
    """Strike by a signal, and again while what was begun is removed."""
    unlink = os.unlink

    def hung_up(path=None, **kw):
        os.unlink = hung_up
        os.kill(os.getpid(), signal.SIGHUP)
        if path:
            unlink(path, **kw)

    at_the_last_step(hung_up)


def no_large_files():
    """Let every file end at 200 bytes, as a quota does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))


def shorten_the_input():
    path = next(word for word in sys.argv if word.endswith(".h5ad"))
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)


def nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


FULL = OSError(errno.ENOSPC, "No space left on device")
FAULTS = {
    "none": lambda: None,
    "killed while reading": strike(while_reading, signal.SIGKILL),
    "killed at the last step": strike(at_the_last_step, signal.SIGKILL),
    "Ctrl-C while reading": strike(while_reading, signal.SIGINT),
    "Ctrl-C at the last step": strike(at_the_last_step, signal.SIGINT),
    "terminated while reading": strike(while_reading, signal.SIGTERM),
    "hung up twice at the last step": hung_up_twice,
    "no room for files": no_large_files,
    "disk full at the last step": strike(at_the_last_step, FULL),
    "memory runs out": strike(while_reading, MemoryError("Unable to allocate 9.3 GiB")),
    "input shortened while read": lambda: while_reading(shorten_the_input),
    "no rights in the folder": nobody,
}


def main(fault: str, words: list[str], said: str, env: dict[str, str]) -> None:
    """Do what the command would do, with standard error in a file."""
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup would have ignored
    sys.argv = ["vcc-helpers", *words]
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  ends with the process
    FAULTS[fault]()
    status = cli.main(words)
    sys.stderr.flush()
    sys.exit(status)


def on_a_full_disk(small: str) -> dict[str, tuple[int, str, list[str]]]:
    """Run commands, read from standard input, that write to a file system of four kilobytes.

    Return of each its exit status, what it said, and what it left there.
    """
    warm()
    found = {}
    for name, words in json.load(sys.stdin).items():
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", small], check=True)
        file, said = tempfile.mkstemp()  # which the child, when it ends, does not remove
        if (child := os.fork()) == 0:
            main("none", words, said, {})
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with open(file, encoding="utf-8") as text:
            found[name] = status, text.read(), os.listdir(small)
        os.remove(said)
        subprocess.run(["umount", small], check=True)
    return found


def warm() -> None:
    values, indptr = np.ones(1, np.float32), np.array([0, 1], np.int32)
    _kernels.look_over(values, indptr, np.float64(1e-3), 0.01, np.zeros((1, 7)))


if __name__ == "__main__" and sys.argv[1] == "--full-disk":
    print(json.dumps(on_a_full_disk(sys.argv[2])))
else:
    warm()
