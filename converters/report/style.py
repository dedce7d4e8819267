"""The page's style sheet; colours as variables, one set for light and one for dark."""

CSS = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5c6773; --paper: #fbfbfa; --card: #ffffff; --line: #dfe3e8;
  --main: #2458c5; --plain: #8a94a0; --good: #1a7f4b; --bad: #b3261e; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b1; --paper: #12161c; --card: #1a2028;
  --line: #2d3641; --main: #7ea6ff; --plain: #76818d; --good: #63d297; --bad: #ff8a80; --warn: #f0b429; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.25rem 0 .75rem; }
.soft, figcaption { color: var(--soft); }
.verdict { border-left: 4px solid var(--good); background: var(--card); padding: .75rem 1rem; margin: 1.25rem 0; }
.verdict.bad { border-color: var(--bad); }
.warning { border-left: 4px solid var(--warn); background: var(--card); padding: .5rem 1rem; margin: .5rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; background: var(--card); font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .45rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: .82rem; }
td.number, th.number { text-align: right; white-space: nowrap; }
.kept { color: var(--good); font-weight: 600; } .refused { color: var(--bad); font-weight: 600; }
code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .92em; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); padding: .75rem; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
svg .axis { stroke: var(--line); } svg .tick { fill: var(--soft); font-size: 11px; }
svg .budget { stroke: var(--bad); stroke-dasharray: 4 3; } svg .zero { stroke: var(--plain); }
svg .span { stroke: var(--main); stroke-width: 3; } svg .dot { fill: var(--main); }
svg .whisker { stroke: var(--soft); stroke-width: 2; }
details { margin: .5rem 0; } summary { cursor: pointer; padding: .25rem 0; }
svg .bar { fill: var(--main); } svg .bar.float { fill: var(--plain); }
"""
