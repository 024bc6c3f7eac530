"""One call of Snakemake, watched: it is ended when its cluster is to be given up or the user wants it, politely first."""

import contextlib
import os
import signal
import subprocess
import threading
import time

from sfxflow.clusters.queues import Unreachable
from sfxflow.clusters.watch import Watch
from sfxflow.clusters.words import in_short

#: Seconds between two looks at the queue.
LOOK_EVERY = 30.0


@contextlib.contextmanager
def interruptible():
    """What is started within heeds SIGINT, also where a shell has this process ignore it: with `&` in a script, or in cron."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class Attempt:
    """
    A running Snakemake in a session of its own, so that a signal reaches it when this process says so.

    Parameters
    ----------
    argv : list of str
    environment : dict
    """

    def __init__(self, argv, environment):
        with interruptible():
            self.process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        #: Why it was ended from here; empty where it was not.
        self.given_up = ""
        self.interrupted = threading.Event()

    def interrupt(self, *_):
        """Signal handler: the user, or the machine's shutdown, wants an end."""
        self.interrupted.set()

    def wait(self, cluster, folder, limits, say, grace=60.0, look_every=LOOK_EVERY, left=()):
        """
        Wait until it has ended, or end it.

        Parameters
        ----------
        cluster : sfxflow.clusters.queues.HTCondor or Slurm or None
        folder : str
        limits : Limits or None
            None: the cluster is never given up, since there is no other.
        say : function
            Called with a line for the user.
        grace : float
            Seconds that Snakemake gets to end in order: it can hang when it is told to end.
        look_every : float
            Seconds.
        left : list of HTCondor or Slurm
            Clusters that could not be reached when their jobs were to be removed; this is tried again now and then, and those where it
            worked leave the list.

        Returns
        -------
        int
            Exit status of Snakemake; negative where a signal ended it.
        """
        watch = Watch(limits, time.monotonic()) if cluster and limits else None
        next_look = time.monotonic() + look_every
        silent_since, complained = None, False
        while self.process.poll() is None:
            if self.interrupted.wait(0.2):
                say("interrupted: Snakemake is asked to end its jobs and itself")
                self._end(grace, say)
                break
            now = time.monotonic()
            if now < next_look:
                continue
            next_look = now + look_every
            for other in list(left):
                if _gone(other, folder):
                    left.remove(other)
            if cluster is None:
                continue
            try:
                jobs = cluster.jobs(folder)
                silent_since, complained = None, False
                reason = watch.look(jobs, time.monotonic()) if watch else ""
            except Unreachable as error:
                silent_since = silent_since or now
                reason = watch.unreachable(in_short(str(error)), time.monotonic()) if watch else ""
                if not watch and not complained and now - silent_since > 10 * look_every:
                    say(
                        f"the queue of {cluster.name} does not answer ({in_short(str(error))}); it is the last profile, so this goes on"
                    )
                    complained = True
            if reason:
                self.given_up = reason
                say(f"given up: {reason}")
                self._end(grace, say)
                break
        return self.process.wait()

    def _end(self, grace, say):
        """SIGINT, upon which it removes its jobs; SIGKILL when it does not end. Never SIGTERM, in which Snakemake 9 can hang."""
        self._signal(signal.SIGINT)
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            say(f"Snakemake did not end within {grace:.0f} s: it is killed")
        # What it started here ends with it.
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def _gone(cluster, folder):
    """Whether no job of a folder is left on a cluster; those that are, are removed."""
    try:
        jobs = cluster.jobs(folder)
        if jobs:
            cluster.remove(jobs)
    except Unreachable:
        return False
    return not jobs
