"""The report's section of found cells."""

import numpy as np

from sfxflow.report.cell import FoundCell, cell_section, cell_warnings


def found(n_forms=2, given=False):
    rng = np.random.default_rng(1)

    def form(parameters, n, accepted=True, refused=None):
        return {
            "cell": {"parameters": parameters, "lattice_type": "tetragonal", "centering": "P", "unique_axis": "c"},
            "accepted": accepted,
            "frames_that_agree": n,
            "indexed": n,
            "indexed_share_of_those": 1.0 if accepted else 0.25,
            "refused": refused or {},
            "missed_symmetry": None,
            "files": [0] * n,
            "frames": list(range(n)),
            "parameters": (np.array(parameters) + 0.05 * rng.standard_normal((n, 6))).tolist() if accepted else [],
        }

    forms = [form([79.1, 79.1, 37.9, 90.0, 90.0, 90.0], 60), form([58.4, 58.4, 152.3, 90.0, 90.0, 90.0], 12)][:n_forms]
    forms.append(form([20.0, 30.0, 40.0, 90.0, 90.0, 90.0], 8, accepted=False, refused={"super-lattice": 6}))
    values = {"hits": 100, "hits_with_a_lattice": 90, "space_group": "P 4 2 2", "space_group_given": given}
    values |= {"forms": forms, "warnings": ["two crystal forms: this and that"] if n_forms > 1 else []}
    return FoundCell("builtin", "lysozyme", "results/builtin/cell/lysozyme/clusters.json", values)


def test_nothing_where_all_cells_were_given():
    assert cell_section([]) is None


def test_forms_and_their_fate():
    text = cell_section([found()])
    assert "lysozyme (builtin)" in text and "90 of 100 hits that were looked at show a lattice" in text
    assert "P 4 2 2 (assumed: all rotations of the lattice)" in text
    assert "79.10 79.10 37.90" in text and "58.40 58.40 152.30" in text
    assert "another crystal form" in text and "refused (super-lattice: 6)" in text
    assert "(given)" in cell_section([found(given=True)])


def test_histograms_of_each_form_with_the_found_cell():
    text = cell_section([found()])
    assert text.count("<svg") == 12
    assert "Histogram of a of 60 frames" in text and "found cell 79.100" in text
    assert "Histogram of c of 12 frames" in text and "found cell 152.300" in text
    assert cell_section([found(n_forms=1)]).count("<svg") == 6


def test_warnings_say_the_dataset():
    (warning,) = cell_warnings(found())
    assert warning.serious and warning.where == "builtin, dataset lysozyme, unit cell"
    assert warning.text == "Two crystal forms: this and that."
    assert cell_warnings(found(n_forms=1)) == []
