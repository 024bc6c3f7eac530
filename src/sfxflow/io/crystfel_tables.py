"""Tables of figures of merit in the layout of compare_hkl and check_hkl (--shell-file), to compare line by line."""

import numpy as np

#: compare_hkl's --fom to our name, its column heading and the format of its value.
PAIR_FIGURES = {
    "Rsplit": ("r_split", " Rsplit/%", "%"),
    "CC": ("cc", "       CC", "7"),
    "CCstar": ("cc_star", "      CC*", "7"),
    "R1I": ("r1_i", "  R1(I)/%", "%"),
    "R1F": ("r1_f", "  R1(F)/%", "%"),
    "R2": ("r2", "     R2/%", "%"),
}
ANOMALOUS_FIGURES = {
    "CCano": ("cc_ano", "    CCano", "7"),
    "CRDano": ("crd_ano", "    CRDano", "7"),
    "Rano": ("r_ano", "   Rano/%", "%"),
}
_NM = 10.0  # 1/angstrom to 1/nm


def pair_text(table, fom):
    """A `statistics.tables.Table` of two lists as compare_hkl --fom=`fom` writes it."""
    name, heading, kind = {**PAIR_FIGURES, **ANOMALOUS_FIGURES}[fom]
    count = table.shells.get("n_pairs", table.shells.get("n_bijvoet_pairs"))
    lines = [f"  1/d centre{heading}       nref      d / A   Min 1/nm    Max 1/nm"]
    for i, centre in enumerate(_centres(table.limits)):
        value = table.shells[name][i]
        shown = f"{100.0 * value:10.2f}" if kind == "%" else f"{value:10.7f}"
        low, high = table.limits[i : i + 2] * _NM
        lines.append(f"{centre * _NM:10.3f} {shown} {int(count[i]):10d} {1.0 / centre:10.2f} {low:10.3f}  {high:10.3f}")
    return "\n".join(lines) + "\n"


def single_text(table):
    """A `statistics.tables.Table` of one list as check_hkl writes it."""
    lines = [
        "Center 1/nm  # refs Possible  Compl       Meas   Red   SNR     Mean I     d(A)    Min 1/nm   Max 1/nm",
    ]
    for i, centre in enumerate(_centres(table.limits)):
        figures = {name: values[i] for name, values in table.shells.items()}
        low, high = table.limits[i : i + 2] * _NM
        lines.append(
            f"{centre * _NM:10.3f} {int(figures['n_reflections']):8d} {int(figures['n_possible']):8d} "
            f"{100.0 * figures['completeness']:6.2f} {figures['n_measurements']:10.0f} {figures['multiplicity']:5.1f} "
            f"{figures['i_over_sigma']:5.2f} {figures['mean_i']:10.2f} {1.0 / centre:8.2f}  {low:10.3f} {high:10.3f}"
        )
    return "\n".join(lines) + "\n"


def _centres(limits):
    return limits[:-1] + np.diff(limits) / 2.0
