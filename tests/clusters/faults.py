"""What happens to jobs on a pool, done on purpose: to the jobs of chosen chunks, as soon as they run."""

import re
import signal
import time

from processes import arguments_of, parent_of, processes_of, send

IDLE, RUNNING, HELD = 1, 2, 5


def chunk_of(job):
    """The chunk that a job computes, of its job ad; None for a job that belongs to no chunk."""
    found = re.search(r"\bchunk=(\d{4})", job["Args"])
    return found.group(1) if found else None


def process_of_chunk(pool, chunk):
    """Id of the first process of the chunk's job: the Snakemake that its starter started; None while there is none."""
    found = [pid for pid in processes_of(pool.folder) if f"chunk={chunk}" in " ".join(arguments_of(pid))]
    first = [pid for pid in found if "condor_starter" in " ".join(arguments_of(parent_of(pid)))]
    return first[0] if first else None


def kill_job(pool, job):
    """kill -9 of a job's first process; false while there is none."""
    pid = process_of_chunk(pool, chunk_of(job))
    if pid:
        send(signal.SIGKILL, [pid])
    return bool(pid)


def kill_starter(pool, job):
    """kill -9 of the daemon that watches a job; false while there is none."""
    pid = process_of_chunk(pool, chunk_of(job))
    starter = pid and parent_of(pid)
    if starter:
        send(signal.SIGKILL, [starter])
    return bool(starter)


def remove(pool, job):
    """condor_rm of a job."""
    pool.call("condor_rm", job["ClusterId"])
    return True


def hold(pool, job):
    """condor_hold of a job."""
    pool.call("condor_hold", job["ClusterId"])
    return True


def apply(pool, work, process, faults, patience=300):
    """
    Do to each chunk's first job what was asked for, once it runs.

    Parameters
    ----------
    pool : Pool
    work : WorkFolder
        Where Snakemake was started.
    process : subprocess.Popen
        It.
    faults : dict
        Chunk to one of the functions above.

    Returns
    -------
    dict
        Chunk to the number of the job.
    """
    left, done = dict(faults), {}
    give_up = time.monotonic() + patience
    while left:
        assert process.poll() is None, work.printed()
        assert time.monotonic() < give_up, f"no job of chunk {', '.join(left)} ran:\n{work.printed()}"
        for job in jobs_of(pool, work, RUNNING):
            chunk = chunk_of(job)
            if chunk in left and left[chunk](pool, job):
                del left[chunk]
                done[chunk] = job["ClusterId"]
        time.sleep(0.3)
    return done


def jobs_of(pool, work, status=None):
    """Jobs in the queue that were submitted from a folder."""
    return [job for job in pool.jobs() if job["Iwd"] == str(work.folder) and status in (None, job["JobStatus"])]


def records_of(pool, work):
    """The pool's records of the jobs that were submitted from a folder and have left the queue."""
    return [job for job in pool.history() if job["Iwd"] == str(work.folder)]


def wait_until_gone(pool, work, patience=60):
    """Wait until no job of a folder is in the queue: a removed one stays there until its processes are gone."""
    give_up = time.monotonic() + patience
    while jobs_of(pool, work):
        assert time.monotonic() < give_up, work.printed()
        time.sleep(0.2)


def wait_for_running_job(pool, work, process, patience=120):
    """Wait until a chunk's job of a folder has a process; returns its ad."""
    give_up = time.monotonic() + patience
    while True:
        for job in jobs_of(pool, work, RUNNING):
            if chunk_of(job) and process_of_chunk(pool, chunk_of(job)):
                return job
        assert process.poll() is None, work.printed()
        assert time.monotonic() < give_up, work.printed()
        time.sleep(0.2)
