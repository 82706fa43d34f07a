"""The report's style: light and dark, phone and print, nothing from outside the file."""

_LIGHT = """
  --page: #f6f7f9; --card: #fff; --text: #16202a; --quiet: #5b6875; --rule: #e1e6eb; --accent: #0f766e;
  --on-accent: #fff; --c0: #0f766e; --c1: #c2410c; --c2: #4f46e5; --c3: #be185d; --c4: #4d7c0f; --c5: #7e22ce;
  --on-middle: #16202a; --c6: #0369a1; --c7: #7c2d12;
"""
_DARK = """
  --page: #0f1419; --card: #182028; --text: #e6ebf0; --quiet: #93a1af; --rule: #2a3541; --accent: #2dd4bf;
  --on-accent: #06201d; --c0: #2dd4bf; --c1: #fb923c; --c2: #a5b4fc; --c3: #f9a8d4; --c4: #bef264; --c5: #d8b4fe;
  --on-middle: #06201d; --c6: #7dd3fc; --c7: #fcd34d;
"""

STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }}
header p {{ margin: 6px 0 0; color: var(--quiet); max-width: 44em; }}
h1 {{ font-size: 30px; line-height: 1.2; letter-spacing: -0.02em; margin: 0; }}
h2 {{ font-size: 17px; margin: 0 0 2px; letter-spacing: -0.01em; }}
.card > p {{ margin: 0 0 14px; color: var(--quiet); font-size: 14px; max-width: 52em; }}
.card p:last-child {{ margin-bottom: 0; }}
.tiles {{ display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 12px; margin: 26px 0 20px; }}
.tile, .card {{ background: var(--card); border: 1px solid var(--rule); border-radius: 12px; }}
.tile {{ padding: 14px 16px; }}
.tile b {{ display: block; font-size: 24px; font-weight: 650; letter-spacing: -0.02em;
  font-variant-numeric: tabular-nums; white-space: nowrap; }}
.tile span {{ color: var(--quiet); font-size: 13px; }}
.cards {{ display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }}
.card {{ padding: 20px; min-width: 0; break-inside: avoid; }}
.wide {{ grid-column: 1 / -1; }}
.scroll {{ overflow-x: auto; }}
svg {{ display: block; width: 100%; height: auto; font-size: 12px; font-variant-numeric: tabular-nums; }}
svg text {{ fill: var(--quiet); }}
.grid {{ stroke: var(--rule); }}
.cell, .bar {{ fill: var(--accent); }}
svg .strong {{ fill: var(--on-accent); }}
svg .weak, svg .value {{ fill: var(--text); }}
svg .middle {{ fill: var(--on-middle); }}
.line {{ fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }}
.dot {{ fill: var(--card); stroke: var(--line); stroke-width: 2; }}
svg .end {{ fill: var(--line); font-weight: 600; }}
table {{ border-collapse: collapse; width: 100%; font-size: 14px; }}
th, td {{ text-align: right; padding: 7px 10px; border-bottom: 1px solid var(--rule); vertical-align: top;
  font-variant-numeric: tabular-nums; white-space: nowrap; }}
th {{ color: var(--quiet); font-weight: 500; }}
tr:last-child td {{ border-bottom: 0; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
td.names {{ text-align: left; white-space: normal; color: var(--quiet); min-width: 14em; }}
th.names {{ text-align: left; }}
.note {{ margin: 6px 0 0; padding-left: 10px; border-left: 3px solid var(--c1); color: var(--text); }}
code {{ font: 13px/1.4 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; }}
summary {{ cursor: pointer; color: var(--quiet); font-size: 14px; margin-top: 10px; }}
footer {{ color: var(--quiet); font-size: 13px; margin-top: 28px; }}
@media (max-width: 720px) {{
  main {{ padding: 24px 14px 40px; }}
  .cards {{ grid-template-columns: minmax(0, 1fr); }}
  .tiles {{ grid-template-columns: repeat(2, minmax(0, 1fr)); }}
  .card {{ padding: 16px 14px; }}
  .tile {{ padding: 12px 14px; }}
  .tile b {{ font-size: 21px; }}
  h1 {{ font-size: 25px; }}
}}
@media print {{
  :root {{ {_LIGHT} --page: #fff; }}
  body {{ font-size: 12px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
  main {{ max-width: none; padding: 0; }}
}}
"""
