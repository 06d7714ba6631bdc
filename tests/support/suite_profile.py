"""What the suite costs: seconds by test file, and the memory of each process that ran tests."""

import collections
import importlib.metadata
import os
import pathlib
import platform
import resource
import time

import pytest


def peak_gigabytes() -> float:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # Linux counts kilobytes


class SuiteProfile:
    """A pytest plugin: collects what the reports say, prints memory, writes the table if asked."""

    def __init__(self, config: pytest.Config):
        self.config = config
        self.began = time.monotonic()
        self.seconds = collections.Counter()
        self.tests = collections.Counter()
        self.peaks = []

    def pytest_runtest_logreport(self, report):
        file = report.nodeid.partition("::")[0]
        self.seconds[file] += report.duration
        self.tests[file] += report.when == "call"

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error):
        self.peaks += [node.workeroutput["peak"]] if hasattr(node, "workeroutput") else []

    def pytest_sessionfinish(self):
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["peak"] = peak_gigabytes()

    def pytest_terminal_summary(self, terminalreporter):
        peaks = ", ".join(f"{peak:.2f}" for peak in self.peaks or [peak_gigabytes()])
        terminalreporter.write_line(f"Most memory held by a process that ran tests: {peaks} GB")
        if file := self.config.getoption("suite_profile"):
            pathlib.Path(file).write_text(self.table(peaks))

    def table(self, peaks: str) -> str:
        """Return the page: totals, then a row for each file, the longest first."""
        jax = importlib.metadata.version("jax")
        command = " ".join(self.config.invocation_params.args)
        number, total = sum(self.tests.values()), sum(self.seconds.values())
        took = time.monotonic() - self.began
        summary = (
            f"`pytest {command}` on Python {platform.python_version()}, jax {jax}, "
            f"{os.cpu_count()} cores: {number} tests in {took:.0f} s. The seconds below are wall "
            f"clock within a process, {total:.0f} s in all. "
            f"Most memory held by each process: {peaks} GB."
        )
        lines = [
            "# What the suite costs",
            "",
            summary,
            "",
            "| File | Seconds | Share | Tests |",
            "|---|---:|---:|---:|",
        ]
        for file, seconds in self.seconds.most_common():
            lines.append(f"| {file} | {seconds:.1f} | {seconds / total:.1%} | {self.tests[file]} |")
        return "\n".join(lines) + "\n"
