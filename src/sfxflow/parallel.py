"""Work spread over processes, results in order.

Each process builds its own state (open files, work arrays) with a set-up function; nothing of it is shared. Only a few batches are
under way at a time, so memory does not grow with the number of items.
"""

import multiprocessing
import os
import sys
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from sfxflow.errors import InputError

#: Items that a process takes at once: many enough that handing over costs little, few enough that the end is shared out evenly.
BATCH = 8
#: Batches under way for each process.
_AHEAD = 3

_worker = {}


def ordered_map(work, setup, setup_arguments, items, processes):
    """Yield work(state, item) for each item in order, with state = setup(*setup_arguments) made once in each process.

    Parameters
    ----------
    work, setup : function
        Top-level functions of a module (they are sent to other processes by name).
    setup_arguments : tuple
    items : sequence
    processes : int
        With 1 everything happens in this process, otherwise only the first item does.

    Raises
    ------
    InputError
        A process died (killed, or out of memory).
    """
    if processes <= 1 or len(items) <= BATCH:
        state = setup(*setup_arguments)
        for item in items:
            yield work(state, item)
        return
    # The first item is done here: what is compiled on first use is then compiled once, and forked processes have it.
    yield work(setup(*setup_arguments), items[0])
    items = items[1:]
    batches = [items[i : i + BATCH] for i in range(0, len(items), BATCH)]
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(
        min(processes, len(batches)), context, initializer=_start, initargs=(work, setup, setup_arguments)
    ) as pool:
        waiting = deque()
        following = iter(batches)
        try:
            for batch in following:
                waiting.append(pool.submit(_run_batch, batch))
                if len(waiting) >= _AHEAD * processes:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise InputError(
                "a worker process died (killed, or out of memory); give the job more memory or fewer threads and run it again"
            ) from None
        finally:
            for future in waiting:
                future.cancel()


def _start(work, setup, setup_arguments):
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _worker["state"] = setup(*setup_arguments)
    except InputError as error:
        # An exception here would only break the pool: keep its message for the first batch.
        _worker["error"] = str(error)
    _worker["work"] = work


def _end_with_parent():
    """A process whose parent was killed would wait for work for ever."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _run_batch(batch):
    if "error" in _worker:
        raise InputError(_worker["error"])
    return [_worker["work"](_worker["state"], item) for item in batch]
