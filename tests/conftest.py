"""Fixtures that several folders of tests use."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Examples compile kernels and share the machine: the time that one takes says nothing.
settings.register_profile("sfxflow", deadline=None)
settings.load_profile("sfxflow")

ROOT = Path(__file__).parents[1]

#: No single command of a test may take longer than this, seconds.
_PATIENCE = 300


#: Marker of tests to a program that they need.
_PROGRAMS = {"crystfel": "indexamajig"}


#: Folders and files of tests in the order in which processes take the files: the long ones first, so that none is still at work when the
#: others have ended. The first two take as long as their kernels take to compile, and these are not the same ones.
_ORDER = [
    "cli/test_end_to_end.py",
    "unit/merging/test_merge.py",
    "workflow/",
    "real/",
    "cli/test_lock.py",
    "cli/test_crystfel_engine.py",
    "unit/peaks/test_search.py",
    "cli/",
    "",
]


def _place(item):
    name = item.path.relative_to(ROOT / "tests").as_posix()
    return next(place for place, start in enumerate(_ORDER) if name.startswith(start))


def pytest_collection_modifyitems(items):
    """Put long files first; skip tests of programs that are not installed, and say so."""
    items.sort(key=_place)
    for item in items:
        for marker, program in _PROGRAMS.items():
            if item.get_closest_marker(marker) and shutil.which(program) is None:
                item.add_marker(pytest.mark.skip(reason=f"{program} is not on PATH"))


@pytest.fixture(scope="session")
def shared_data():
    """The folder `shared` beside the checkout, with real data and data simulated by another program; skips without it."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("no folder shared/data beside the checkout")
    return folder


class WorkFolder:
    """A folder that a user works in: commands as they are typed there, and what they print."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONWARNINGS": "ignore::UserWarning:htcondor2",
        }

    def start(self, *argv, output=subprocess.PIPE):
        """Start a command as a group of processes of its own; returns the `subprocess.Popen`."""
        return subprocess.Popen(
            [str(argument) for argument in argv],
            cwd=self.folder,
            env=self.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(self, *argv):
        """Run a command; returns its exit status and what it printed."""
        process = self.start(*argv)
        try:
            text, _ = process.communicate(timeout=_PATIENCE)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, text

    def sfxflow(self, *argv):
        """Run `sfxflow` and expect it to succeed; returns what it printed."""
        status, text = self.call("sfxflow", *argv)
        assert status == 0, text
        return text

    def refused(self, *argv):
        """Run `sfxflow`, expect it to refuse with a message for people; returns the message."""
        status, text = self.call("sfxflow", *argv)
        assert status == 1, text
        assert "Traceback" not in text, text
        return text

    @property
    def workflow(self):
        """The command that runs the workflow here."""
        return ("snakemake", "--snakefile", ROOT / "Snakefile", "--profile", "local")

    def snakemake(self, *argv):
        """Run the workflow and expect it to succeed, without a traceback in any log; returns what it printed."""
        status, text = self.call(*self.workflow, *argv)
        assert status == 0, text
        for log in self.folder.glob("logs/**/*.log"):
            assert "Traceback" not in log.read_text(), log.read_text()
        return text

    def cpu_seconds(self, *argv):
        """User and system time of a `sfxflow` command, its worker processes included."""
        process = self.start("sfxflow", *argv, output=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, argv
        return usage.ru_utime + usage.ru_stime

    def log(self, path):
        """Text of a log file."""
        return (self.folder / "logs" / path).read_text()

    def result(self, path):
        """Path of a result file, which must be there."""
        found = self.folder / "results" / path
        assert found.is_file(), found
        return found


@pytest.fixture(scope="session")
def init_folder(tmp_path_factory):
    """Make a `WorkFolder` by `sfxflow init`, whose options are given."""

    def make(*options):
        folder = tmp_path_factory.mktemp("user") / "work"
        WorkFolder(folder.parent).sfxflow("init", *options, "--output", folder)
        return WorkFolder(folder)

    return make
