"""A real HTCondor pool of this machine on loopback, its daemons included."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from processes import arguments_of, end_guard, processes_of, send, start_guard

HERE = Path(__file__).parent

#: Lines for the configuration: the machine says that its files are not those of the submitting one.
APART = "STARTD.FILESYSTEM_DOMAIN = elsewhere\nSTARTER.FILESYSTEM_DOMAIN = elsewhere\n"


def free_port():
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def unprivileged(argv):
    """
    A command as HTCondor accepts it: it refuses jobs of root. Root runs it as user 1 of a user namespace, whose files are root's outside,
    so nothing has to be given to another account; everybody else runs it as it is.
    """
    wrapper = ["unshare", "--user", "--map-user=1", "--map-group=1", "--"] if os.getuid() == 0 else []
    return [*wrapper, *map(str, argv)]


class Pool:
    """
    A pool that is started by `start` and ended by `stop`, or by its guard when this process is gone.

    Parameters
    ----------
    folder : Path
        Its configuration, logs and spool.
    prefix : Path
        HTCondor's programs, `tools.htcondor()`.
    apptainer : Path or None
        The program that starts containers.
    cpus, memory : int
        What its one machine claims to have; memory in MB.
    hidden : sequence of Path
        Folders that daemon and jobs of the machine do not see: an empty file system lies over each.
    disks : dict of Path to str
        Folders of the machine that are a small disk of their own, and its size ("40m").
    more : str
        Lines for the end of the configuration.
    """

    def __init__(self, folder, prefix, apptainer=None, cpus=16, memory=64000, hidden=(), disks=None, more=""):
        self.folder = Path(folder)
        self.prefix = Path(prefix)
        self.configuration = self.folder / "condor_config"
        self.port = free_port()
        values = {"PREFIX": prefix, "FOLDER": folder, "PORT": self.port, "CPUS": cpus, "MEMORY": memory}
        values["APPTAINER"] = apptainer or "/usr/bin/apptainer"
        self.values = values
        programs = [self.prefix / "usr/bin", self.prefix / "usr/sbin"]
        self.environment = {
            "CONDOR_CONFIG": str(self.configuration),
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
        }
        self.disks = dict.fromkeys(hidden, "1m") | (disks or {})
        self.more = more
        self._guard = None

    def start(self):
        """Configure and start the pool; returns when a slot waits for jobs."""
        for part in ("log", "spool", "execute", "run", "lock", "tokens", "passwords"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        for part in ("tokens", "passwords"):
            (self.folder / part).chmod(0o700)
        text = (HERE / "condor_config.in").read_text()
        for name, value in self.values.items():
            text = text.replace(f"@{name}@", str(value))
        self.configuration.write_text(text + self._of_a_machine_apart() + self.more)
        self._guard = start_guard(self.folder)
        self.start_daemons()

    def _of_a_machine_apart(self):
        """Lines that have the machine's daemon started in a file system of its own, by a script beside them."""
        if not self.disks:
            return ""
        script = self.folder / "startd.sh"
        over = " && ".join(f"mount -t tmpfs -o size={size} none '{path}'" for path, size in self.disks.items())
        # A user namespace of its own may mount; inside it the user is the one that the other daemons are.
        apart = f'exec unshare --user --map-user={self._user()} --map-group={self._user()} --keep-caps --mount sh -c \'{over.replace(chr(39), chr(34))} && exec "$0" "$@"\''
        script.write_text(f'#!/bin/sh\n{apart} {self.prefix}/usr/sbin/condor_startd "$@"\n')
        script.chmod(0o755)
        return f"STARTD = {script}\n"

    def on_machine(self, path):
        """A path as the machine's daemon and jobs see it, for everybody else."""
        (startd,) = [pid for pid in processes_of(self.folder) if arguments_of(pid)[0].endswith("condor_startd")]
        return Path(f"/proc/{startd}/root{path}")

    @staticmethod
    def _user():
        return 1 if os.getuid() == 0 else os.getuid()

    def start_daemons(self):
        """Start the daemons on what lies in the folder."""
        self._call("condor_master", "-pidfile", self.folder / "master.pid")
        give_up = time.monotonic() + 90
        while not self._is_up():
            if time.monotonic() > give_up:
                logs = "".join(f"{path}\n{path.read_text()[-2000:]}\n" for path in self.folder.glob("log/*Log"))
                raise TimeoutError(f"the pool did not come up\n{logs}")
            time.sleep(0.1)

    def _is_up(self):
        if not (self.folder / "tokens/tests").exists():
            identity = "daemon" if os.getuid() == 0 else self._call("id", "-un").stdout.strip()
            self._call("condor_token_create", "-identity", f"{identity}@localdomain", "-token", "tests")
        slots = self._call("condor_status", "-af", "Name")
        queue = self._call("condor_q", "-af", "ClusterId")
        return slots.returncode == queue.returncode == 0 and "slot" in slots.stdout

    def stop_daemons(self):
        """End the daemons, their jobs too, as a shutdown of the machine does; what they know stays in the spool."""
        master = int((self.folder / "master.pid").read_text())
        send(signal.SIGQUIT, [master])
        give_up = time.monotonic() + 20
        while any("condor_" in " ".join(arguments_of(pid)[:1]) for pid in processes_of(self.folder)):
            if time.monotonic() > give_up:
                send(signal.SIGKILL, processes_of(self.folder))
            time.sleep(0.1)

    def stop(self):
        """End every process of the pool and of its jobs."""
        if self._guard:
            end_guard(self._guard)

    def _call(self, *argv):
        return subprocess.run(
            unprivileged(argv),
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def call(self, *argv):
        """Run one of the pool's programs and expect it to succeed; returns what it printed."""
        done = self._call(*argv)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def jobs(self):
        """Job ads of the queue, each a dict."""
        return json.loads(self.call("condor_q", "-json") or "[]")

    def history(self):
        """Job ads of those that have left the queue, each a dict."""
        return json.loads(self.call("condor_history", "-json") or "[]")
