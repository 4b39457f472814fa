# SPDX-License-Identifier: Apache-2.0
"""Markdown tables from suite.py's results: medians, and ratios to the reference servers.

R1. One table per plan, in the order in which results came; a missing result is "-", never a zero.
R2. A ratio above 1 is better than the reference: of throughputs, or the inverse one of times.
Knows nothing of how results are made. Change with: meter.c, which writes them."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable
from typing import Any

Result = dict[str, Any]
Workload = tuple[str, tuple[tuple[str, int], ...]]  # mode, parameters
Rows = dict[Workload, dict[str, list[Result]]]  # workload -> server -> repeats

PARAMETERS = ("depth", "conns", "watches", "nodes", "children", "bytes", "lazy", "D", "W", "intro")
REFERENCES = ("c", "ox")
UNITS = {"ops_s": "ops/s", "p50_us": "p50", "p99_us": "p99", "max_us": "max", "cpu_us": "cpu"}
COLUMNS = ("ops_s", "p50_us", "p99_us", "cpu_us")


def group(results: Iterable[Result]) -> dict[str, Rows]:
    """Results by plan, workload and server, in order of appearance."""
    plans: dict[str, Rows] = {}
    for result in results:
        parameters = tuple((name, result[name]) for name in PARAMETERS if name in result)
        rows = plans.setdefault(result["plan"], {})
        rows.setdefault((result["mode"], parameters), {}).setdefault(
            result["srv"], []).append(result)
    return plans


def median(results: Iterable[Result], column: str) -> float | None:
    """The median over the repeats; None if there are none."""
    values = [result[column] for result in results if column in result]
    return statistics.median(values) if values else None


def show(value: float | None) -> str:
    """A number with no more digits than it deserves."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 20 or value == 0 else f"{value:.1f}"


def ratio_pairs(servers: list[str]) -> list[tuple[str, str]]:
    """(server, reference) pairs that get a ratio column."""
    references = [name for name in REFERENCES if name in servers]
    others = [name for name in servers if name not in REFERENCES]
    if not others and len(references) == len(REFERENCES):
        return [(REFERENCES[1], REFERENCES[0])]
    return [(name, reference) for name in others for reference in references]


def ratio(by_server: dict[str, list[Result]], pair: tuple[str, str],
          column: str) -> float | None:
    """How many times better the first is than the second; None if one is missing."""
    first, second = (median(by_server.get(name, []), column) for name in pair)
    if not first or not second:
        return None
    return second / first if column.endswith("_us") else first / second


def label(workload: Workload) -> str:
    """A workload's name and parameters."""
    mode, parameters = workload
    return " ".join([mode] + [f"{name}={value}" for name, value in parameters])


def table(plan: str, text: str, rows: Rows, columns: Iterable[str] = COLUMNS,
          ratio_column: str = "ops_s") -> str:
    """One markdown table."""
    columns = list(columns)
    found = {name for by_server in rows.values() for name in by_server}
    servers = sorted(found, key=lambda name: (name in REFERENCES, name))
    pairs = ratio_pairs(servers)
    heads = servers + [f"{name}/{reference}" for name, reference in pairs]
    units = " / ".join(UNITS.get(column, column) for column in columns)
    lines = [f"### {plan}: {text}" if text else f"### {plan}", "",
             f"{repeats(rows)}: {units}. Times in us"
             f"{'; cpu is server CPU per operation' if 'cpu_us' in columns else ''}. Ratios "
             f"of {UNITS.get(ratio_column, ratio_column)}: above 1 is better.", "",
             "| workload | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for workload, by_server in rows.items():
        cells = [" / ".join(show(median(by_server[name], column)) for column in columns)
                 if name in by_server else "-" for name in servers]
        for pair in pairs:
            value = ratio(by_server, pair, ratio_column)
            cells.append("-" if value is None else f"{value:.2f}")
        lines.append(f"| {label(workload)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def repeats(rows: Rows) -> str:
    """How many results a figure is the median of."""
    counts = {len(results) for by_server in rows.values() for results in by_server.values()}
    if counts == {1}:
        return "One run"
    least, most = min(counts), max(counts)
    return f"Medians of {most} runs" if least == most else f"Medians of {least} to {most} runs"


def main(arguments: list[str]) -> int:
    """The command: print the tables of result files."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.report",
        description="Markdown tables of what suite.py --out has written.",
        epilog="example: python -m tests.bench.report r.jsonl --columns ops_s,p99_us,rss_kb")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--plan", help="only this plan")
    parser.add_argument("--columns", default=",".join(COLUMNS), help="default %(default)s")
    options = parser.parse_args(arguments)
    results: list[Result] = []
    for path in options.files:
        try:
            with open(path, encoding="utf-8") as lines:
                results += [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            print(f"report: {path}: {error}", file=sys.stderr)
            return 1
    for plan, rows in group(results).items():
        if options.plan in (None, plan):
            print(table(plan, "", rows, options.columns.split(",")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
