"""The page's style sheet: for wide and narrow screens, and for print."""

CSS = """\
:root { color-scheme: light; --ink: #1c1c1c; --quiet: #5a5a5a; --rule: #d4d4d4; --accent: #0b4f7d; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem 4rem; background: #fff; color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0.5rem 0 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 0.5rem; padding-top: 0.4rem; border-top: 2px solid var(--accent); overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 0.4rem; }
p { margin: 0.4rem 0; max-width: 50rem; }
header p, .quiet, figcaption, caption { color: var(--quiet); }
a { color: var(--accent); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; padding: 0; margin: 0.6rem 0; list-style: none; font-size: 0.92rem; }
code { font: 0.86em/1.4 ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.warnings, .notes { margin: 1rem 0; padding: 0.7rem 1.1rem; border: 1px solid; border-left-width: 0.5rem; }
.warnings { border-color: #b00020; background: #fdecee; }
.notes { border-color: #c98a00; background: #fff8e6; }
.warnings h2, .notes h2 { margin: 0; padding: 0; border: 0; font-size: 1.15rem; }
.warnings h2 { color: #8c0019; }
.warnings ul, .notes ul { margin: 0.3rem 0 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
.warnings li, .notes li { margin: 0.3rem 0; }
.scroll { overflow-x: auto; margin: 0.8rem 0 1.2rem; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: 0.9rem; padding-bottom: 0.3rem; overflow-wrap: anywhere; }
th, td { padding: 0.22rem 0.55rem; vertical-align: top; border-bottom: 1px solid #ececec; text-align: left; }
thead th { vertical-align: bottom; border-bottom: 1.5px solid var(--ink); border-top: 1.5px solid var(--ink); font-weight: 600; }
tbody tr:last-child > * { border-bottom: 1.5px solid var(--ink); }
tfoot > tr > * { font-weight: 600; border-bottom: 1.5px solid var(--ink); }
tbody th { font-weight: 400; white-space: nowrap; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; white-space: nowrap; }
.numbers thead th, .numbers thead th:not(:first-child) { white-space: normal; }
.facts thead { display: none; }
.facts tbody tr:first-child > * { border-top: 1.5px solid var(--ink); }
.summary td { min-width: 9rem; }
.text td { overflow-wrap: anywhere; min-width: 4rem; }
.wrong { color: #b00020; }
.bar { width: 9rem; height: 0.85rem; display: block; margin-top: 0.3rem; border: 1px solid var(--rule); }
.legend { font-size: 0.9rem; color: var(--quiet); }
.key { margin-right: 1.2rem; white-space: nowrap; }
.key i { display: inline-block; width: 0.9rem; height: 0.7rem; border: 1px solid var(--rule); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1.2rem; margin: 1rem 0; }
figure { margin: 0; break-inside: avoid; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: 0.87rem; overflow-wrap: anywhere; }
article { break-inside: avoid; }
dl { display: grid; grid-template-columns: 6rem minmax(0, 1fr); gap: 0.15rem 0.8rem; margin: 0.3rem 0 1rem; font-size: 0.9rem; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
dd ul { margin: 0; padding: 0; list-style: none; }
@media (max-width: 40rem) {
  body { padding: 0.6rem 0.8rem 3rem; }
  dl { grid-template-columns: minmax(0, 1fr); }
  dd { margin-bottom: 0.3rem; }
}
@media print {
  body { max-width: none; font-size: 9.5pt; padding: 0; }
  nav { display: none; }
  .scroll { overflow: visible; }
  table { font-size: 8pt; }
  th, td { padding: 0.15rem 0.35rem; }
  h2, h3 { break-after: avoid; }
  tr { break-inside: avoid; }
  .figures { grid-template-columns: repeat(3, 1fr); gap: 0.5rem; }
  .warnings, .notes, .bar, .key i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
