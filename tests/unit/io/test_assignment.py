"""The assignment file reads back as it was written, and says what is wrong with others."""

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sfxflow.errors import InputError
from sfxflow.io.assignment import read_assignment, write_assignment


def contents(counts, rng, n_modes=4):
    n = sum(counts)
    return {
        "chunk": np.repeat(np.arange(len(counts)), counts),
        "crystal": np.concatenate([np.arange(count) for count in counts]),
        "mode": rng.integers(0, n_modes, n),
        "margin": rng.exponential(size=n).astype(np.float32),
        "left_out": rng.random(n) < 0.3,
        "n_observations": rng.integers(0, 500, n),
    }


ATTRS = {"provenance": "{}", "space_group": "P 3", "cell": (1.0, 1.0, 2.0, 90.0, 90.0, 120.0), "told_apart": True}


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 1000))
def test_reads_back(tmp_path, counts, seed):
    rng = np.random.default_rng(seed)
    written, operators = contents(counts, rng), rng.normal(size=(4, 3, 3))
    files = [f"folder/{i}.h5" for i in range(len(counts))]
    names = ["h,k,l", "k,h,-l", "-h,-k,l", "-k,-h,-l"]
    write_assignment(tmp_path / "a.h5", written, operators, ATTRS | {"integrated": files, "operator_names": names})
    found = read_assignment(tmp_path / "a.h5")
    for name, values in written.items():
        np.testing.assert_array_equal(found.crystals[name], values)
    np.testing.assert_array_equal(found.operators, operators)
    assert found.integrated == files
    assert found.attrs["told_apart"] is True
    assert list(found.attrs["operator_names"]) == names
    found.check_files([f"elsewhere/{i}.h5" for i in range(len(counts))])
    for number, count in enumerate(counts):
        mode, left_out = found.of_file(number, count)
        np.testing.assert_array_equal(mode, written["mode"][written["chunk"] == number])
        np.testing.assert_array_equal(left_out, written["left_out"][written["chunk"] == number])
        with pytest.raises(InputError, match=f"has {count} crystals of {files[number]}, which holds {count + 1}"):
            found.of_file(number, count + 1)


def test_files_in_another_order_are_refused(tmp_path):
    written = contents([2, 3], np.random.default_rng(1))
    attrs = ATTRS | {"integrated": ["a.h5", "b.h5"], "operator_names": ["h,k,l"]}
    write_assignment(tmp_path / "a.h5", written, np.eye(3)[None], attrs)
    with pytest.raises(InputError, match=r"of 2 files \(a\.h5, b\.h5\), but 2 others are given \(b\.h5, a\.h5\)"):
        read_assignment(tmp_path / "a.h5").check_files(["b.h5", "a.h5"])


def test_what_is_no_assignment(tmp_path):
    with pytest.raises(InputError, match="can't be opened as HDF5"):
        read_assignment(tmp_path / "none.h5")
    with h5py.File(tmp_path / "x.h5", "w") as handle:
        handle["x"] = 1
    with pytest.raises(InputError, match="is not a file of ways to index"):
        read_assignment(tmp_path / "x.h5")
    attrs = ATTRS | {"integrated": ["a.h5"], "operator_names": ["h,k,l"]}
    write_assignment(tmp_path / "a.h5", contents([2], np.random.default_rng(1)), np.eye(3)[None], attrs)
    with h5py.File(tmp_path / "a.h5", "a") as handle:
        del handle["crystals/mode"]
    with pytest.raises(InputError, match=r"incomplete or damaged .*remove it and run again"):
        read_assignment(tmp_path / "a.h5")
