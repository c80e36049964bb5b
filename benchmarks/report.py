"""The results as a file for programs and as a Markdown table for people.

`python -m benchmarks.report [FILE]` prints the table of a run, by default the last one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def write(file: Path, document: dict[str, Any]) -> None:
    """As JSON: what one looks for on lines of its own, the rest narrow."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n")


def table(document: dict[str, Any]) -> str:
    """The bars, and what every contestant cost."""
    seen = document["machine"]
    lines = [
        f"`{document['command']}`, {document['began'][:10]}, commit {document['commit']}, {document['seconds']} s; "
        f"{seen['processor']}, {seen['cores']} cores, load average before {seen['load_average_before'][0]}"
        + ("; **quick: too few events to quote**" if document["quick"] else ""),
        "",
        "| what | bar | figure | met |",
        "|---|---|---|---|",
    ]
    for bar in document["bars"]:
        note = f" ({bar['note']})" if "note" in bar else ""
        lines.append(f"| {bar['name']} | {bar['bar']} | {figures(bar)}{note} | {'yes' if bar['met'] else '**no**'} |")
    contests = document["parts"].get("contests")
    if contests is not None:
        lines += ["", "| contestant | us CPU an event, from the first | warm | us wall, warm | us CPU of the broker |"]
        lines += ["|---|---|---|---|---|"]
        for name in contests["repetitions"]:
            columns = (f"{name} all cpu", f"{name} warm cpu", f"{name} warm wall", f"{name} broker")
            cells = " | ".join(_spread(contests["summary"][column]) for column in columns)
            lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def figures(bar: dict[str, Any]) -> str:
    """The figures of a bar with their units."""
    values = bar["figure"] if isinstance(bar["figure"], list) else [bar["figure"]]
    units = bar["unit"].split("; ") if bar["unit"] else [""]
    units += units[-1:] * (len(values) - len(units))
    return "; ".join(f"{value:,.4g} {unit}".strip() for value, unit in zip(values, units, strict=True))


def _spread(figure: dict[str, float]) -> str:
    return f"{figure['median']:.1f} ({figure['low']:.1f} to {figure['high']:.1f})"


if __name__ == "__main__":
    named = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("results") / "latest.json"
    print(table(json.loads(named.read_text())))
