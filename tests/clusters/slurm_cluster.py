"""A real Slurm of this machine on loopback: controller, one node, and the authentication service munge of its own."""

import os
import secrets
import socket
import subprocess
import time
from pathlib import Path

from htcondor_pool import free_port
from processes import end_guard, start_guard
from tools import SLURM_CONFIGURATION, SLURM_MARK

HERE = Path(__file__).parent


class Slurm:
    """
    A Slurm that is started by `start` and ended by `stop`, or by its guard when this process is gone; `tools.slurm()` first.

    Parameters
    ----------
    folder : Path
        Its configuration, logs and state.
    cpus, memory : int
        What its one node claims to have; memory in MB.
    """

    def __init__(self, folder, cpus=16, memory=64000):
        self.folder = Path(folder)
        self.values = {"FOLDER": folder, "HOST": socket.gethostname().split(".")[0], "CPUS": cpus, "MEMORY": memory}
        self.values |= {"PORT": free_port(), "NODE_PORT": free_port()}
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._guard = None

    def start(self):
        """Configure and start the cluster; returns when the node waits for jobs."""
        for part in ("controller", "node"):
            (self.folder / part).mkdir(parents=True)
        # munged refuses a socket below a folder that others may not enter.
        self.folder.chmod(0o755)
        text = (HERE / "slurm.conf.in").read_text()
        for name, value in self.values.items():
            text = text.replace(f"@{name}@", str(value))
        assert SLURM_MARK in text
        (self.folder / "slurm.conf").write_text(text)
        SLURM_CONFIGURATION.parent.mkdir(parents=True, exist_ok=True)
        SLURM_CONFIGURATION.unlink(missing_ok=True)
        SLURM_CONFIGURATION.symlink_to(self.folder / "slurm.conf")
        key = self.folder / "munge.key"
        key.touch(mode=0o400)
        key.write_bytes(secrets.token_bytes(1024))
        self._guard = start_guard(self.folder)
        files = {
            "key-file": "munge.key",
            "socket": "munge.sock",
            "pid-file": "munged.pid",
            "log-file": "munged.log",
            "seed-file": "munged.seed",
        }
        self.call("munged", "--force", *(f"--{option}={self.folder / name}" for option, name in files.items()))
        self.call("slurmctld")
        self.call("slurmd")
        give_up = time.monotonic() + 60
        while "idle" not in self._call("sinfo", "--noheader", "--format=%t")[1]:
            if time.monotonic() > give_up:
                logs = "".join(f"{path}\n{path.read_text()[-2000:]}\n" for path in self.folder.glob("*.log"))
                raise TimeoutError(f"Slurm did not come up\n{logs}")
            time.sleep(0.1)

    def stop(self):
        """End every process of the cluster and of its jobs, and take the link to its configuration away."""
        if self._guard:
            end_guard(self._guard)
        if SLURM_CONFIGURATION.is_symlink() and SLURM_CONFIGURATION.readlink() == self.folder / "slurm.conf":
            SLURM_CONFIGURATION.unlink()

    def _call(self, *argv):
        # A file, not a pipe: the daemons keep open what they were started with.
        printed = self.folder / "printed"
        with printed.open("w") as handle:
            status = subprocess.run(
                list(map(str, argv)),
                env=os.environ | self.environment,
                stdout=handle,
                stderr=subprocess.STDOUT,
                timeout=60,
                check=False,
            ).returncode
        return status, printed.read_text()

    def call(self, *argv):
        """Run one of Slurm's programs and expect it to succeed; returns what it printed."""
        status, text = self._call(*argv)
        assert status == 0, text
        return text

    def finished_jobs(self):
        """Slurm's own record of the jobs that have ended: each a dict of JobId, Name, JobState, ExitCode, NodeList, ..."""
        path = self.folder / "jobs.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [dict(field.split("=", 1) for field in line.split() if "=" in field) for line in lines]
