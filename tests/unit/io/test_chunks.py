"""Chunks decoded in this process give what HDF5's own filters give, and damaged ones neither crash nor pass."""

import os

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfxflow.io import lz4_chunks
from sfxflow.io.chunks import PlaneReader, unshuffle_plane

RNG = np.random.default_rng(11)
COMPRESSIONS = {
    "gzip": {"compression": "gzip"},
    "shuffle and gzip": {"compression": "gzip", "shuffle": True},
    "LZ4": hdf5plugin.LZ4(),
    "LZ4 in small blocks": hdf5plugin.LZ4(nbytes=24),
    "shuffle and LZ4": {"shuffle": True, **hdf5plugin.LZ4()},
    "bitshuffle/LZ4": hdf5plugin.Bitshuffle(),
    "bitshuffle/LZ4 in blocks of 8": hdf5plugin.Bitshuffle(nelems=8),
    "bitshuffle/LZ4 in blocks of 72": hdf5plugin.Bitshuffle(nelems=72),
}


def bitshuffled(values, **options):
    """The bytes of a bitshuffle/LZ4 chunk, as the HDF5 filter writes them."""
    with h5py.File("memory", "w", driver="core", backing_store=False) as handle:
        data = handle.create_dataset("d", data=values, chunks=values.shape, **hdf5plugin.Bitshuffle(**options))
        handle.flush()
        return np.frombuffer(data.id.read_direct_chunk((0,) * values.ndim)[1], dtype=np.uint8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.integers(1, 40)),
    chunk=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.integers(1, 40)),
    crop=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    dtype=st.sampled_from(["u1", "i2", "f4", "u8"]),
    compression=st.sampled_from(sorted(COMPRESSIONS)),
)
def test_chunks_of_any_form_give_what_h5py_gives(tmp_path, shape, chunk, crop, dtype, compression):
    data = RNG.integers(0, 200, shape).astype(dtype)
    chunk, crop = np.minimum(chunk, shape), np.minimum(crop, shape[2:])
    with h5py.File(tmp_path / "c.h5", "w") as handle:
        dataset = handle.create_dataset("d", data=data, chunks=tuple(map(int, chunk)), **COMPRESSIONS[compression])
        reader = PlaneReader(dataset, ("%", 0, "ss", "fs"))
        for i, k in np.ndindex(*shape[:2]):
            out = np.empty(crop, dtype=dtype)
            reader._read_chunks((i, k), out)
            np.testing.assert_array_equal(out, dataset[i, k, : crop[0], : crop[1]])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_common_compressions_go_past_the_filters_of_hdf5(tmp_path, compression, monkeypatch):
    data = RNG.integers(0, 200, (2, 20, 30)).astype(np.uint16)
    with h5py.File(tmp_path / "c.h5", "w") as handle:
        dataset = handle.create_dataset("d", data=data, chunks=(1, 20, 30), **COMPRESSIONS[compression])
        reader = PlaneReader(dataset, ("%", "ss", "fs"))
        monkeypatch.setattr(PlaneReader, "_read_h5py", lambda *_: pytest.fail("read through HDF5's filters"))
        out = np.empty((20, 30), dtype=np.uint16)
        reader.read((1,), out)
        np.testing.assert_array_equal(out, data[1])


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("highest", [0, 3, 15, 255, 2**63])
@pytest.mark.parametrize("size", [4096 * 3 + 64, 8192 + 71, 7, 64, 8])
def test_bitshuffled_values_with_few_or_all_bits(dtype, highest, size):
    values = RNG.integers(0, highest, size, endpoint=True, dtype=np.uint64).astype(dtype)
    values[RNG.integers(0, size, 3)] = np.iinfo(dtype).max
    out = np.empty_like(values)
    lz4_chunks.decode_bitshuffled(bitshuffled(values), out)
    np.testing.assert_array_equal(out, values)


@pytest.mark.parametrize("decode", [lz4_chunks.decode_bitshuffled, lz4_chunks.decode_plain])
def test_damaged_chunks_are_refused_and_nothing_outside_is_touched(decode):
    values = RNG.poisson(2, 5000).astype(np.uint16)
    if decode is lz4_chunks.decode_plain:
        values = values.view(np.uint8)
        with h5py.File("memory", "w", driver="core", backing_store=False) as handle:
            data = handle.create_dataset("d", data=values, chunks=values.shape, **hdf5plugin.LZ4(nbytes=4096))
            handle.flush()
            raw = np.frombuffer(data.id.read_direct_chunk((0,))[1], dtype=np.uint8)
    else:
        raw = bitshuffled(values)
    guarded = np.full(values.size + 200, 77, dtype=values.dtype)
    out = guarded[100:-100]
    decode(raw, out)
    np.testing.assert_array_equal(out, values)
    refused = 0
    for trial in range(400):
        damaged = raw.copy()
        at = RNG.integers(0, raw.size, 3)
        damaged[at] = RNG.integers(0, 256, 3)
        try:
            decode(damaged[: RNG.integers(0, raw.size)] if trial % 2 else damaged, out)
        except ValueError:
            refused += 1
        assert (guarded[:100] == 77).all()
        assert (guarded[-100:] == 77).all()
    # All that end too early are; of the others those whose structure is hit, as LZ4 has no checksum.
    assert refused > 200
    for short in (raw[:11], raw[:-1], np.append(raw, np.uint8(0))):
        with pytest.raises(ValueError, match="damaged"):
            decode(short, out)


def test_another_number_of_values_is_refused():
    with pytest.raises(ValueError, match="damaged"):
        lz4_chunks.decode_bitshuffled(bitshuffled(np.arange(64, dtype=np.uint16)), np.empty(63, dtype=np.uint16))


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
def test_unshuffle_is_a_transposition_of_bytes(dtype):
    values = RNG.integers(0, 250, (3, 4, 6)).astype(dtype)
    raw = np.ascontiguousarray(values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T).ravel()
    out = np.empty((3, 5), dtype=dtype)
    unshuffle_plane(raw, 2, 4, 6, out)
    np.testing.assert_array_equal(out, values[2, :3, :5])


@pytest.mark.parametrize("compression", [None, "gzip", "bitshuffle/LZ4"])
def test_announced_planes_are_where_their_bytes_lie(tmp_path, monkeypatch, compression):
    data = RNG.integers(0, 200, (3, 2, 20, 30)).astype(np.uint16)
    options = {"chunks": (1, 1, 8, 30), **COMPRESSIONS[compression]} if compression else {}
    announced = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, offset, size, advice: announced.append((offset, size, advice)))
    with h5py.File(tmp_path / "c.h5", "w") as handle:
        dataset = handle.create_dataset("d", data=data, **options)
        handle.flush()
        PlaneReader(dataset, ("%", "%", "ss", "fs")).announce((2, 1))
        raw = (tmp_path / "c.h5").read_bytes()
        if compression:
            expected = [dataset.id.read_direct_chunk((2, 1, row, 0))[1] for row in (0, 8, 16)]
        else:
            expected = [data[2, 1].tobytes()]
    assert [raw[offset : offset + size] for offset, size, _ in announced] == expected
    assert {advice for *_, advice in announced} == {os.POSIX_FADV_WILLNEED}


@pytest.mark.parametrize("driver", ["core", None])
def test_what_cannot_be_announced_is_passed_over(tmp_path, driver, monkeypatch):
    """A file without a descriptor, a chunk that was never written, frames that lie across the chunks."""
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: pytest.fail("announced"))
    with h5py.File(tmp_path / "c.h5", "w", **({"driver": driver} if driver else {})) as handle:
        dataset = handle.create_dataset("d", (3, 8, 9), "u2", chunks=(1, 8, 9), compression="gzip")
        PlaneReader(dataset, ("%", "ss", "fs")).announce((1,))
        PlaneReader(dataset, ("ss", "fs", "%")).announce((1,))
        monkeypatch.delattr(os, "posix_fadvise")
        PlaneReader(dataset, ("%", "ss", "fs")).announce((1,))
