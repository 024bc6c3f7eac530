"""Say where the results lie, and print the overall figures of merit: `python workflow/scripts/show_results.py`."""

import json
from pathlib import Path

SHOWN = {
    "n_reflections": "reflections",
    "completeness": "completeness",
    "multiplicity": "multiplicity",
    "i_over_sigma": "I/sigma(I)",
    "r_split": "Rsplit",
    "cc_half": "CC1/2",
    "cc_star": "CC*",
    "reference_r1_i": "R1(I), reference",
    "reference_cc": "CC, reference",
}


def main():
    """Print the results that are there."""
    for path in sorted(Path("results").glob("*/merged/*/*/figures_of_merit.json")):
        engine, _, merger, dataset = path.parts[1:5]
        print(f"\n{dataset}: engine {engine}, merger {merger}, all shells together")
        overall = json.loads(path.read_text())["overall"]
        for name, title in SHOWN.items():
            value = overall.get(name)
            if value is None and name.startswith("reference"):
                continue
            print(f"  {title:<16} {'not defined' if value is None else f'{value:.6g}'}")
    print("\nResults:")
    for pattern in (
        "report/index.html",
        "*/merged/*/*/merged.mtz",
        "*/merged/*/*/figures_of_merit.tsv",
        "*/runs/*/frames.tsv",
    ):
        for path in sorted(Path("results").glob(pattern)):
            print(f"  {path}")


if __name__ == "__main__":
    main()
