"""A contract, run by pytest against many versions of a plugin, of which all but one break something."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.command import python_path
from tests.plugins.distributions import install

HERE = Path(__file__).parent
ENDS_WITHIN = 120.0
# The other plugins for pytest that are installed beside ours take two seconds to import.
ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "JIMS_API_KEY": "of-the-developer"}
PLUGINS = ("-p", "no:cacheprovider", "-p", "anyio", "-p", "jimsapi_pytest")

# Hanging is given up early, and every version that has no class of its own gets one.
HEAD = """
from jimsapi.testing import contract

contract.ANSWERS_WITHIN = 0.5
contract.SETTLES_WITHIN = 0.2
"""
TAIL = """
WRITTEN = set(globals())
for version in set(VERSIONS) - {name.removeprefix("Test") for name in WRITTEN}:
    globals()["Test" + version] = type("Test" + version, (TestSound,), {"version": version, "__module__": __name__})
"""

Faults = Mapping[str, tuple[str, ...]]
"""By version of the plugin the cases that must fail for it; of a case the beginning of its name, without `test_`."""


class ContractRun:
    """What pytest said of each case, by test class and name: None if it passed, else its failure's text.

    `module` is a file of this folder, installed as `distribution`; `contract` is the text of a test module that has a
    class `TestSound`. All cases are run for it and for `whole` classes, and those of `faults` for the others.
    """

    def __init__(
        self, folder: Path, distribution: str, module: str, contract: str, faults: Faults, whole: tuple[str, ...] = ()
    ) -> None:
        install(folder, distribution, (HERE / module).read_text(encoding="utf-8"))
        (folder / "test_it.py").write_text(f"VERSIONS = {list(faults)!r}\n{HEAD}{contract}{TAIL}", encoding="utf-8")
        chosen = [f"(Test{version} and test_{case})" for version, cases in faults.items() for case in cases]
        report = folder / "report.xml"
        ran = run_pytest(folder, f"--junitxml={report}", "-k", " or ".join([*chosen, "TestSound", *whole]))
        assert report.is_file(), ran.stdout + ran.stderr
        self.cases: dict[tuple[str, str], str | None] = {}
        for case in ET.parse(report).iter("testcase"):
            fault = next((part for part in case if part.tag in ("failure", "error", "skipped")), None)
            key = case.attrib["classname"].rpartition(".")[2], case.attrib["name"]
            self.cases[key] = None if fault is None else f"{fault.tag}: {fault.attrib.get('message')}\n{fault.text}"

    def of_class(self, name: str) -> dict[str, str | None]:
        """What was said of each case of a class."""
        return {case: said for (cls, case), said in self.cases.items() if cls == name}

    def failure(self, version: str, case: str) -> str:
        """The failure of a case. Fails if it passed, or stumbled before it looked."""
        said = self.of_class(f"Test{version}")
        [found] = [text for name, text in said.items() if name.startswith(f"test_{case}")]
        assert found is not None, f"{version} passed {case}"
        assert found.startswith("failure"), found
        return found

    def never_failed(self, contract: type) -> set[str]:
        """The cases of a contract that no version failed."""
        return cases_of(contract) - {name for (_, name), said in self.cases.items() if said is not None}


def run_pytest(folder: Path, *options: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder, in which plugins are installed. If they hang, the failure shows the stacks."""
    command = [sys.executable, "-m", "pytest", "-q", *PLUGINS, "--import-mode=importlib", *options]
    given = {**os.environ, **ENVIRONMENT, "PYTHONPATH": python_path(folder), **(env or {})}
    with subprocess.Popen(
        command, cwd=folder, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # pytest's faulthandler then writes the stacks
            output, errors = process.communicate()
            raise AssertionError(f"pytest did not end in {ENDS_WITHIN:g} seconds:\n{output}{errors}") from None
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def cases_of(contract: type) -> set[str]:
    """The names of a contract's cases."""
    return {name for name in dir(contract) if name.startswith("test_")}


def pairs(faults: Faults) -> list[tuple[str, str]]:
    """Each version with each case that it must fail."""
    return [(version, case) for version, cases in faults.items() for case in cases]
