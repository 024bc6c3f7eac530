"""Merging of many observations: time and memory as they grow, from shards on disk as `sfxflow merging` has them.

Crystals are simulated (seed 901) and copied with other scales and more noise until there are enough observations; each size is merged
by a process of its own, whose peak memory is all that it holds, mapped files included. With --full up to 1e8 observations (2 GB of
disk in the folder for temporary files, minutes, two threads); otherwise up to 1e7. Needs nothing but sfxflow.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/unit/merging")]

from observation_simulator import CELL, SPACE_GROUP, simulate
from table import Row, main

from sfxflow.cli.merging import _collect
from sfxflow.io.shards import Shards
from sfxflow.io.table import ChunkWriter
from sfxflow.merging import cycles
from sfxflow.merging.merge import Parts, merge_blocks
from sfxflow.merging.observations import Block, Collector
from sfxflow.reflections import TABLES
from sfxflow.settings import Merging
from sfxflow.symmetry import space_group

SEED = 901
#: Crystals that are simulated, and observations of a shard.
N_CRYSTALS, SHARD = 600, 1_000_000
#: The most memory that 1e8 observations may take.
REACH_MEMORY = 2e9
REACH_SPEED = 20e6


class Copies:
    """A collector of the simulated crystals, as many times as there are copies of them."""

    def __init__(self, n_observations):
        simulated = simulate(N_CRYSTALS, seed=SEED)
        self.collector = Collector(CELL, space_group(SPACE_GROUP))
        self.block = self.collector.add(simulated.crystals, simulated.reflections, 0)
        own = int(self.block.offsets[-1])
        self.n_copies = max(1, round(n_observations / own))
        for name in ("_shapes", "_counts", "_gains"):
            setattr(self.collector, name, getattr(self.collector, name) * self.n_copies)
        rng = np.random.default_rng(SEED)
        self.collector._hashes = [rng.integers(0, 2, N_CRYSTALS).astype(np.uint8) for _ in range(self.n_copies)]
        self.collector.n_observations = own * self.n_copies

    def write(self, shards):
        """Copy after copy into shards of about `SHARD` observations."""
        rng = np.random.default_rng(SEED + 1)
        per_shard = max(1, SHARD // int(self.block.offsets[-1]))
        for first in range(0, self.n_copies, per_shard):
            columns = [self._copy(rng) for _ in range(first, min(first + per_shard, self.n_copies))]
            counts = np.tile(np.diff(self.block.offsets), len(columns))
            offsets = np.concatenate([[0], np.cumsum(counts)])
            joined = {name: np.concatenate([one[name] for one in columns]) for name in columns[0]}
            shards.append(Block(first * N_CRYSTALS, offsets, joined))

    def _copy(self, rng):
        columns = dict(self.block.columns)
        scale = np.exp(rng.normal(0, 0.3, N_CRYSTALS)).astype(np.float32)
        scale = np.repeat(scale, np.diff(self.block.offsets))
        noise = 0.5 * columns["sigma"] * rng.standard_normal(len(scale), dtype=np.float32)
        columns["intensity"] = scale * (columns["intensity"] + noise)
        columns["sigma"] = scale * columns["sigma"] * np.float32(1.25**0.5)
        return columns


def merged(n_observations, folder, n_groups=0, n_cycles=8, threads=1):
    """Figures of one merge, in this process."""
    copies = Copies(n_observations)
    n = copies.collector.n_observations
    n_crystals = len(copies.collector.counts)
    seconds = {"merge": [], "fit": [], "assess": []}
    for name, spent in seconds.items():
        setattr(cycles.Run, name, timed_pass(getattr(cycles.Run, name), spent))
    parts = Parts(tuple(map(str, range(n_groups))), np.arange(n_crystals) % n_groups) if n_groups else None
    begin, cpu = time.perf_counter(), time.process_time()
    with Shards(Path(folder) / "merged.h5") as shards:
        copies.write(shards)
        written = time.process_time() - cpu
        result = merge_blocks(shards, copies.collector, Merging(cycles=n_cycles), threads, parts=parts)
    return {
        "n": n,
        "n_cycles": n_cycles,
        "n_crystals": n_crystals,
        "n_reflections": len(result.reflections["I"]),
        "n_merged": int(result.summary["n_crystals_merged"]),
        "n_fits": sum(of_them > 0.9 * n for of_them, _ in seconds["fit"]),
        "merge": pass_speed(seconds["merge"], max),
        "fit": pass_speed(seconds["fit"], np.median),
        "seconds": time.process_time() - cpu - written,
        "wall": time.perf_counter() - begin,
        "memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def collected(n_observations):
    """CPU seconds a million observations to bring integrated files into shards."""
    simulated = simulate(N_CRYSTALS, seed=SEED)
    copies = max(1, round(n_observations / len(simulated.reflections["h"])))
    n = copies * N_CRYSTALS
    crystals = {name: np.concatenate([values] * copies) for name, values in simulated.crystals.items()}
    reflections = {name: np.tile(values, copies) for name, values in simulated.reflections.items()}
    reflections["crystal"] += np.repeat(
        np.arange(copies, dtype=np.uint32) * N_CRYSTALS, len(reflections["h"]) // copies
    )
    frames = {"frame": np.arange(n), "photon_energy": np.full(n, 9500.0), "status": np.full(n, 3)}
    tables = {
        "frames": frames | {name: [""] * n for name in ("file", "event", "message")},
        "crystals": crystals | {"frame": np.arange(n), "cell": np.tile(CELL, (n, 1))},
        "reflections": reflections,
    }
    with tempfile.TemporaryDirectory(prefix="merging_scale.") as folder:
        path = Path(folder) / "chunk.h5"
        with h5py.File(path, "w") as handle:
            writer = ChunkWriter(handle, "{}", tables)
            for table, columns in tables.items():
                length = len(next(iter(columns.values())))
                writer.append(table, {c.name: columns.get(c.name, np.zeros((length, *c.shape))) for c in TABLES[table]})
        collector = Collector(CELL, space_group(SPACE_GROUP))
        with Shards(Path(folder) / "merged.h5") as shards:
            begin = time.process_time()
            _collect([path] * 2, SimpleNamespace(parameters=CELL), collector, shards, None, None)
            return (time.process_time() - begin) / collector.n_observations * 1e6


def timed_pass(method, spent):
    """`method` of a `cycles.Run`, of which each call adds its observations and CPU seconds to `spent`."""

    def timed(run, *args, **kwargs):
        begin = time.process_time()
        n = int(run.counts[run.active > 0].sum())
        result = method(run, *args, **kwargs)
        spent.append((n, time.process_time() - begin))
        return result

    return timed


def pass_speed(spent, chosen):
    """Observations a second, the one that is `chosen` of the passes over (nearly) all observations."""
    most = max(n for n, _ in spent)
    return float(chosen([n / seconds for n, seconds in spent if n > 0.9 * most]))


def of_a_process(n_observations, **options):
    """Figures of one merge, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="merging_scale.") as folder:
        call = f"import json, merging_scale; print(json.dumps(merging_scale.merged({n_observations:.0f}, {folder!r}, **{options})))"
        done = subprocess.run([sys.executable, "-c", call], cwd=HERE, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(full="--full" in sys.argv):
    """Rows of the benchmark."""
    merged(1e5, tempfile.gettempdir(), n_cycles=2)  # compiles
    found = [of_a_process(size) for size in (1e6, 3e6, 1e7)]
    collect = collected(1e6)
    rows = [Row("integrated files into shards, a million observations", "", collect, "s CPU")]
    if full:
        found.append(of_a_process(1e8, threads=2))
    for one in found:
        rows += _rows(one)
    seconds = _slope(found, "seconds")
    rise, last = _slope(found, "memory"), found[-1]
    span = f"from {found[-2]['n'] / 1e6:.0f} to {last['n'] / 1e6:.0f} million"
    rows.append(Row("memory for each further observation", "", rise, "byte", None, span))
    if not full:
        at = last["memory"] + rise * (1e8 - last["n"])
        rows.append(Row("peak memory, 100 million, by extrapolation", "<= 2", at / 1e9, "GB", at <= REACH_MEMORY))
    at = last["memory"] + rise * (1e9 - last["n"])
    rows.append(Row("peak memory, 1000 million, by extrapolation", "", at / 1e9, "GB"))
    for n in (1e9,) if full else (1e8, 1e9):
        what = f"files to merged, {n / 1e6:.0f} million, by extrapolation"
        rows.append(Row(what, "", n * (seconds + collect / 1e6) / 3600, "h CPU"))
    groups = of_a_process(3e6, n_groups=8)
    speed, what = groups["merge"], "with 8 groups, 3 million observations"
    rows.append(Row(f"merging pass {what}", ">= 20", speed / 1e6, "M/s", speed >= REACH_SPEED))
    rows.append(Row(f"peak memory {what}", "", groups["memory"] / 1e9, "GB"))
    return rows


def _slope(found, name):
    """How much more each further observation takes, from the last two sizes."""
    first, last = found[-2], found[-1]
    return (last[name] - first[name]) / (last["n"] - first["n"])


def _rows(one):
    million = f"{one['n'] / 1e6:.1f} million observations"
    note = f"{one['n_crystals']} crystals, {one['n_reflections']} reflections"
    clock = f"{one['wall']:.0f} s by the clock with the making of the set"
    speed, memory, is_large = one["merge"], one["memory"], one["n"] > 5e7
    return [
        Row(f"merging pass, {million}", ">= 20", speed / 1e6, "M/s", speed >= REACH_SPEED, note),
        Row(f"fit pass, {million}", "", one["fit"] / 1e6, "M/s", None, "of one core"),
        Row(
            f"scaling and merging, {million}",
            "",
            one["seconds"],
            "s CPU",
            None,
            f"{one['n_fits']} cycles over all, {clock}",
        ),
        Row(f"scaling and merging, {million}, speed", "", one["n"] / one["seconds"] / 1e6, "M/s", None, "of one core"),
        Row(
            f"peak memory, {million}",
            "<= 2" if is_large else "",
            memory / 1e9,
            "GB",
            memory <= REACH_MEMORY if is_large else None,
            "mapped shards included",
        ),
    ]


if __name__ == "__main__":
    main(measure)
