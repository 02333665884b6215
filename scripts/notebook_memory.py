"""Hold every notebook to a limit of memory while its test runs: a plugin for pytest.

    pytest --nbmake notebooks -p notebook_memory --notebook-memory 2GB

A notebook whose kernel, with all that it starts, needs more at any moment fails. The peaks are
printed at the end, and written to a file with --notebook-memory-json FILE.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import psutil
import pytest

UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9}
SECONDS_BETWEEN_LOOKS = 0.25


def parse_size(text: str) -> int:
    """Turn ``"2GB"`` into bytes."""
    number, unit = text[:-2], text[-2:].upper()
    if unit not in UNITS or not number.strip().replace(".", "", 1).isdecimal():
        raise ValueError(f"expected a size such as 2GB or 500MB, got {text!r}")
    return int(float(number) * UNITS[unit])


def peak_of(process: psutil.Process) -> int:
    """Most memory the process ever held, in bytes; where the system does not tell, what it holds.

    Linux keeps the peak itself, so that nothing between two looks is missed.
    """
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return process.memory_info().rss


class Watch(threading.Thread):
    """Look at all processes below this one until told to stop; bytes, and seconds of the cores."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.cpu, self._stopped = 0, 0.0, threading.Event()

    def run(self):
        """Look, wait, look again."""
        while not self._stopped.wait(SECONDS_BETWEEN_LOOKS):
            self.look()

    def look(self):
        """Add up what the processes below this one hold, and note the largest peak of one."""
        together, largest, cpu = 0, 0, 0.0
        for process in psutil.Process().children(recursive=True):
            try:
                together += process.memory_info().rss
                largest = max(largest, peak_of(process))
                cpu += sum(process.cpu_times()[:4])  # its own, and of children that have ended
            except psutil.Error:  # it ended between two looks
                continue
        self.peak, self.cpu = max(self.peak, together, largest), max(self.cpu, cpu)

    def stop(self):
        """End the watch."""
        self._stopped.set()
        self.join()


def pytest_addoption(parser):
    """Add the two options."""
    group = parser.getgroup("notebook memory")
    told = {"metavar": "SIZE", "default": float("inf"), "help": "such as 2GB"}
    group.addoption("--notebook-memory", type=parse_size, **told)
    group.addoption("--notebook-memory-json", metavar="FILE", help="write the peaks there")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Run a notebook under watch, and fail it if it took too much."""
    if not getattr(item, "nbmake", False):
        return (yield)
    watch, start = Watch(), time.perf_counter()
    watch.start()
    try:
        result = yield
    finally:
        watch.stop()
    record = {"peak_bytes": watch.peak, "seconds": round(time.perf_counter() - start, 1)}
    record["cpu_seconds"] = round(watch.cpu, 1)
    item.user_properties.append(("notebook", {item.name: record}))
    limit = item.config.getoption("notebook_memory")
    if watch.peak > limit:
        pytest.fail(
            f"{item.name} needed {watch.peak / 1e9:.2f} GB of memory, the limit is "
            f"{limit / 1e9:.2f} GB",
            pytrace=False,
        )
    return result


def pytest_terminal_summary(terminalreporter, config):
    """Print the peaks of all notebooks, and write them where asked."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    found = {}
    for report in reports:
        for name, record in getattr(report, "user_properties", []):
            if name == "notebook":
                found |= record
    if not found:
        return
    terminalreporter.section("memory of notebooks")
    for name, record in sorted(found.items()):
        terminalreporter.write_line(
            f"{record['peak_bytes'] / 1e9:6.2f} GB  {record['seconds']:6.1f} s  {name}"
        )
    if path := config.getoption("notebook_memory_json"):
        Path(path).write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")
