"""The file between merging and export."""

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfxflow.errors import InputError
from sfxflow.io.merged import ANOMALOUS, CRYSTALS, MERGED, read_merged, write_merged

ATTRS = {
    "provenance": "{}",
    "dataset": "lyso",
    "space_group": "P 43 21 2",
    "cell": (79.1, 79.1, 37.9, 90.0, 90.0, 90.0),
    "wavelength": 1.305,
    "anomalous": False,
    "integrated": ["a.integrated.h5", "b.integrated.h5"],
}


def rows(columns, n):
    return {c.name: ["merged"] * n if c.dtype == "str" else np.arange(n).astype(c.dtype) for c in columns}


def write(path, n=3, anomalous=False, merged=None, **attrs):
    columns = MERGED + (ANOMALOUS if anomalous else ())
    write_merged(
        path,
        merged or rows(columns, n),
        rows(CRYSTALS, 2),
        {"x": np.arange(4.0)},
        ATTRS | {"anomalous": anomalous} | attrs,
    )


@given(hnp.arrays("f8", st.integers(0, 20)), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_what_was_written_is_read(tmp_path, values, anomalous):
    columns = MERGED + (ANOMALOUS if anomalous else ())
    merged = {c.name: values if c.dtype == "f8" else np.arange(len(values)) for c in columns}
    write(tmp_path / "m.h5", anomalous=anomalous, merged=merged)
    found, crystals, partiality, attrs = read_merged(tmp_path / "m.h5")
    for name, expected in merged.items():
        np.testing.assert_array_equal(found[name], expected)
    assert crystals["status"] == ["merged", "merged"]
    assert partiality["x"].tolist() == [0, 1, 2, 3]
    assert attrs == ATTRS | {"anomalous": anomalous}


def test_more_columns_and_attributes_are_kept(tmp_path):
    write(tmp_path / "m.h5", merged=rows(MERGED, 3) | {"chi2": np.arange(3.0)}, partiality_model="unity")
    merged, _, _, attrs = read_merged(tmp_path / "m.h5")
    assert merged["chi2"].tolist() == [0, 1, 2]
    assert attrs["partiality_model"] == "unity"


def test_columns_carry_units_and_meaning(tmp_path):
    write(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as handle:
        assert handle["crystals/B"].attrs["units"] == "angstrom^2"
        assert handle["merged/I"].attrs["meaning"] == "merged intensity"
        assert handle.attrs["format"] == "sfxflow merged 1"


@pytest.mark.parametrize("wrong", ["missing", "lengths", "attribute"])
def test_incomplete_content_is_a_programming_error_and_leaves_no_file(tmp_path, wrong):
    merged, attrs = rows(MERGED, 3), dict(ATTRS)
    if wrong == "missing":
        del merged["n_half2"]
    elif wrong == "lengths":
        merged["I"] = np.zeros(2)
    else:
        del attrs["wavelength"]
    with pytest.raises(ValueError, match=r"n_half2|different lengths|wavelength"):
        write_merged(tmp_path / "m.h5", merged, rows(CRYSTALS, 2), {}, attrs)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"missing\.h5: can't be opened as HDF5"):
        read_merged(tmp_path / "missing.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(InputError, match=r"text\.h5: can't be opened as HDF5"):
        read_merged(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as handle:
        handle["a"] = 1
    with pytest.raises(InputError, match=r"other\.h5: is not a merged file of sfxflow"):
        read_merged(tmp_path / "other.h5")


@pytest.mark.parametrize("name", ["merged/I", "crystals", "crystals/status", "partiality"])
def test_incomplete_file_is_told(tmp_path, name):
    path = tmp_path / "m.h5"
    write(path)
    with h5py.File(path, "a") as handle:
        del handle[name]
    with pytest.raises(InputError, match=r"m\.h5: incomplete or damaged .*remove it and run again"):
        read_merged(path)


def test_truncated_file_is_told(tmp_path):
    path = tmp_path / "m.h5"
    write(path, n=2000)
    path.write_bytes(path.read_bytes()[:30000])
    with pytest.raises(InputError, match=r"m\.h5: "):
        read_merged(path)
