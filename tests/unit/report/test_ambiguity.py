"""What the report says of the indexing ambiguity, from plain values."""

import numpy as np
import pytest
from ambiguous_crystals import CASES, operator_of, simulate

from sfxflow.report.ambiguity import ambiguity_part, ambiguity_warnings
from sfxflow.report.contents import Dataset
from sfxflow.symmetry import reflection_key, to_asu


def dataset(case="P63", mixed=0.0, **attrs):
    """A dataset whose merged intensities are the true ones, a part `mixed` of them in the second way to index."""
    cell, _, names = CASES[case]
    simulated = simulate(case, 1, 10, seed=3, d_min=4.0)
    key = reflection_key(simulated.hkl)
    order = np.argsort(key)
    intensity = simulated.intensity
    if mixed:
        related = reflection_key(to_asu(np.rint(simulated.hkl @ simulated.operators[1]), simulated.group))
        intensity = (1 - mixed) * intensity + mixed * intensity[order[np.searchsorted(key[order], related)]]
    merged = {letter: simulated.hkl[:, axis] for axis, letter in enumerate("hkl")}
    merged |= {
        "I": intensity,
        "sigI": np.full(len(intensity), 0.02 * intensity.mean()),
        "n": np.full(len(intensity), 9),
    }
    values = {
        "space_group": simulated.group.xhm(),
        "cell": cell,
        "operators": np.array([operator_of(name) for name in names]),
        "operator_names": names,
        "ambiguity_resolved": True,
        "ambiguity_told_apart": True,
        "ambiguity_median_margin": 40.0,
        "ambiguity_chance_margin": 5.0,
        "ambiguity_reference_used": "none",
        "ambiguity_remarks": "",
    }
    crystals = {
        "mode": np.array([0, 1, 1, 0, 1]) % len(names),
        "mode_margin": np.array([30.0, 45.0, 0.5, 60.0, 41.0]),
        "status": ["merged", "merged", "way to index uncertain", "merged", "merged"],
    }
    return Dataset("builtin", "builtin", "x", "x", values | attrs, merged, crystals, files={"merged": "merged.h5"})


def test_part_of_a_resolved_dataset():
    text = ambiguity_part(dataset(), "a")
    assert "Median margin 40.0; 5.0 is what crystals get" in text
    assert "No reference was used" in text
    assert '<th scope="row">k,h,-l</th><td>3</td><td>2</td>' in text
    assert text.count("<svg") == 1
    assert list(ambiguity_warnings(dataset())) == []


@pytest.mark.parametrize("case", ["P63", "P43", "P3"])
def test_mixture_is_warned_of(case):
    (serious, text), *_ = ambiguity_warnings(dataset(case, mixed=0.4))
    assert serious
    assert "relates have a correlation of 0.9" in text
    assert "twinned" in text


def test_remarks_are_warnings():
    found = list(ambiguity_warnings(dataset(ambiguity_remarks="one thing\nanother")))
    assert found == [(True, "Indexing ambiguity: one thing."), (True, "Indexing ambiguity: another.")]
    left = dataset(ambiguity_remarks="left as they are", ambiguity_resolved=False)
    assert next(iter(ambiguity_warnings(left)))[0] is False
    assert "left as they are" in ambiguity_part(left, "a")


def test_one_way_to_index_is_not_mentioned():
    one = dataset("P43212")
    assert ambiguity_part(one, "a") is None
    assert list(ambiguity_warnings(one)) == []
    assert ambiguity_part(Dataset("builtin", "builtin", "x", "x"), "a") is None


def test_nothing_merged():
    empty = dataset()
    empty.merged.update({name: values[:0] for name, values in empty.merged.items()})
    assert list(ambiguity_warnings(empty)) == []
    assert "k,h,-l" in ambiguity_part(empty, "a")
