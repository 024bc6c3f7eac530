"""When a cluster is given up: it does not answer, holds all jobs, or lets them wait too long. Decided from looks at its queue."""

from dataclasses import dataclass

from sfxflow.clusters.queues import HELD, RUNNING


@dataclass(frozen=True)
class Limits:
    """
    How long something may last before a cluster is given up, seconds.

    Attributes
    ----------
    queue : float
        Jobs wait and none runs.
    held : float
        All jobs are held.
    unreachable : float
        The queue does not answer.
    """

    queue: float = 7200.0
    held: float = 900.0
    unreachable: float = 600.0


class Watch:
    """
    What has been seen of a cluster so far.

    Parameters
    ----------
    limits : Limits
    now : float
        Seconds, of any clock that goes on steadily.
    """

    def __init__(self, limits, now):
        self.limits = limits
        self.answered = self.moved = self.free = now
        self.seen = set()
        #: Most jobs that were in the queue at a time.
        self.n_most = 0

    def unreachable(self, said, now):
        """The queue did not answer; returns why the cluster is to be given up, empty if it is not yet."""
        if now - self.answered >= self.limits.unreachable:
            return f"its queue has not answered for {_time(now - self.answered)}: {said}"
        return ""

    def look(self, jobs, now):
        """
        The jobs in the queue; returns why the cluster is to be given up, empty if it is not.

        Parameters
        ----------
        jobs : list of sfxflow.clusters.queues.Job
        now : float
        """
        self.answered = now
        numbers = {job.number for job in jobs}
        self.n_most = max(self.n_most, len(jobs))
        ended, self.seen = self.seen - numbers, numbers
        if not jobs or ended or any(job.state == RUNNING for job in jobs):
            # Without jobs it is Snakemake that works, here.
            self.moved = self.free = now
            return ""
        held = [job for job in jobs if job.state == HELD]
        if len(held) < len(jobs):
            self.free = now
        elif now - self.free >= self.limits.held:
            reason = held[0].reason or "no reason is given"
            return f"all {len(held)} jobs have been held for {_time(now - self.free)}: {reason}"
        if now - self.moved >= self.limits.queue:
            reason = next((f": {job.reason}" for job in jobs if job.reason), "")
            return f"{len(jobs)} jobs have waited for {_time(now - self.moved)} and none runs{reason}"
        return ""


def _time(seconds):
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
