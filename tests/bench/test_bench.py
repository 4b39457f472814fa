# SPDX-License-Identifier: Apache-2.0
"""The measurements themselves: a benchmark that has rotted says nothing.

Properties: all three servers get figures in every row of a short run; a workload that fails is
told, gives exit code 1, and is "-" in the table; wrong arguments are refused in one line; ratios
and medians add up; the load generator counts what the server did; guests on rings get all their
replies and notifications, and no domain is left behind.
Method: the suite as a process with very short workloads; hand-made results for the report.
Cannot show: that figures are right; only that they are there, positive and add up."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench import plans, report, suite
from tests.oracle import oracle
from tests.oracle.ours import CHECKOUT, OurServer
from tests.oracle.xsclient import SocketConnection

QUICK = ("--seconds", "0.02", "--reps", "1")
MODES = ("noop,read,write,perms,dir,mkdirrm,connect,txn,txn-read,txn-conflict,pipe-read,pipe-write,"
         "multi-read,multi-write,txn-par,txn-sib,fanout,watchmiss,load,big-dir")
RING_MODES = ("ring-noop,ring-read,ring-write,ring-perms,ring-dir,ring-mkdirrm,ring-txn,"
              "ring-pipe-read,ring-pipe-write,ring-multi-read,ring-multi-write,ring-fanout,"
              "ring-watchmiss,ring-big,ring-scale")


def run_suite(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tests.bench.suite", *arguments], cwd=CHECKOUT,
                          capture_output=True, text=True, timeout=100)


def table_rows(text: str) -> list[list[str]]:
    """The cells of all rows of a markdown text's tables, without the heads."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in text.splitlines() if line.startswith("| ")]
    return [row for row in cells if row[0] != "workload"]


@pytest.mark.slow
def test_every_server_gets_figures_and_ratios(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    done = run_suite("--plan", "same", "--plan", "watch", "--plan", "ring", "--short",
                     "--out", str(out), *QUICK)
    assert done.returncode == 0, done.stderr
    rows = table_rows(done.stdout)
    assert [row[0] for row in rows[:5]] == ["noop", "read", "write", "txn", "mkdirrm"]
    assert len(rows) == 5 + 3 + 3 + 4  # same; three fan-outs; three results of watchmiss; ring
    for row in rows:
        assert len(row) == 1 + 3 + 2
        assert all(re.fullmatch(r"[\d.]+( / [\d.]+){3}", cell) for cell in row[1:4]), row
        assert all(re.fullmatch(r"\d+\.\d\d", cell) for cell in row[4:]), row
    assert len(out.read_text().splitlines()) == 3 * len(rows)
    assert "[" in done.stderr and "same 1/1" in done.stderr


def test_a_failed_run_is_told_and_no_figure() -> None:
    done = run_suite("--plan", "scalei", "--domains", "0", "tardigrade", *QUICK)
    assert done.returncode == suite.EXIT_FAILURES
    assert "FAILED tardigrade: xsbench" in done.stderr and "growing numbers" in done.stderr
    assert table_rows(done.stdout) == []


def test_a_server_that_dies_is_told() -> None:
    done = run_suite("--plan", "same", "dying=cmd:'true'", *QUICK)
    assert done.returncode == suite.EXIT_CANNOT_START
    assert done.stderr.startswith("bench: dying did not start")


@pytest.mark.parametrize("arguments", [
    ["bogus"], ["a=/nowhere"], ["c", "c"], ["--reps", "0"], ["--plan", "bogus"],
    ["--server-cpu", "100000"], ["--plan", "watch", "a=/nowhere:1"],
    ["--plan", "ring", "a=/nowhere:1"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        suite.parse(arguments)
    assert ended.value.code == suite.EXIT_USAGE
    assert capsys.readouterr().err.count("error:") == 1


def test_one_cpu_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    options = suite.parse([])
    assert (options.server_cpu, options.client_cpu) == (3, 3)


def test_load_generator_counts_what_the_server_did() -> None:
    """Every operation that xsbench reports is a change in the server, and none is missing."""
    program = suite.prepare(suite.parse(["tardigrade"]))
    with OurServer() as server:
        done = subprocess.run(
            [program, "-s", server.socket_path, "-P", str(server.pid), "-T", "x", "-t", "0.03",
             "-c", "4", "-k", "4", "-w", "8", "-n", "300", "-m", MODES],
            capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        results = {result["mode"]: result for result in map(json.loads, done.stdout.splitlines())}
        assert results.keys() >= {mode for mode in MODES.split(",")
                                  if mode not in ("watchmiss", "big-dir")}
        for result in results.values():
            assert 0 < result["p50_us"] <= result["p99_us"] <= result["max_us"] or (
                result["mode"] == "load"), result
            assert result["ops_s"] > 0 and result["rss_kb"] > 0
        assert results["txn-conflict"]["eagain"] == results["txn-conflict"]["ops"]
        assert results["txn"]["eagain"] == 0
        listed = oracle.run_client(server.socket_path, "xenstore-list", "/bench/k").stdout
        assert len(listed.split()) == 300


@contextlib.contextmanager
def server_with_rings(kind: str, directory: Path) -> Iterator[tuple[Path, Path]]:
    """A server's socket and simulated Xen directory; "ours" or one of the peers."""
    if kind == "ours":
        directory.mkdir()
        with OurServer(sim=directory, arguments=["--quota", "nodes=0"]) as server:
            yield server.socket_path, directory
    else:
        with oracle.running(kind, big_quotas=True) as running:
            yield running / "socket", running / "sim"


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["-L"]], ids=["eager", "lazy"])
@pytest.mark.parametrize("kind", ["ours", *oracle.KINDS])
def test_guests_on_rings(kind: str, options: list[str], tmp_path: Path) -> None:
    program = suite.prepare(suite.parse(["c"]))
    with server_with_rings(kind, tmp_path / "sim") as (socket_path, sim):
        done = subprocess.run(
            [program, "-s", socket_path, "-S", sim, "-T", "x", "-t", "0.02", "-c", "20", "-k", "30",
             "-w", "8", "-D", "1,4", *options, "-m", RING_MODES],
            capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr  # it counts notifications that did not come
        results = [json.loads(line) for line in done.stdout.splitlines()]
        assert {result["mode"] for result in results} >= {
            mode for mode in RING_MODES.split(",")
            if mode not in ("ring-watchmiss", "ring-big", "ring-scale")}
        steps = [(result["mode"], result["D"]) for result in results if "D" in result]
        assert steps == [(f"ring-sc-{step}", count) for count in (1, 4) for step in (
            "grow", "read", "write", "notify", "create", "destroy")]
        assert [result["bytes"] for result in results if "bytes" in result] == [2000] * 2 + [
            4000] * 2
        with SocketConnection(socket_path) as dom0:
            assert not any(dom0.is_introduced(domid) for domid in range(1, 30))


def test_rings_need_their_directory() -> None:
    program = suite.prepare(suite.parse(["tardigrade"]))
    done = subprocess.run([program, "-s", "/nowhere", "-m", "ring-read"], capture_output=True,
                          text=True, timeout=10)
    assert (done.returncode, done.stderr) == (2, "a ring needs -S\n")


def test_plans_are_sound() -> None:
    assert {plan.name for plan in plans.SHORT} == {"same", "micro", "watch", "idle", "ring",
                                                   "ringsame", "pause"}
    for plan in plans.ALL:
        assert plan.workloads
        for workload in plan.workloads + plan.short:
            assert "-m" in workload.split() and "-t" in workload.split()
    assert plans.adjust("-t 0.3 -m x -D 1,2", 0.1, "7") == ["-t", "0.1", "-m", "x", "-D", "7"]


def result(srv: str, ops_s: float, **more: Any) -> report.Result:
    return {"plan": "p", "mode": "m", "srv": srv, "ops_s": ops_s, "p50_us": 1e6 / ops_s, **more}


def test_report_medians_and_ratios() -> None:
    results = [result("tardigrade", value) for value in (100, 300, 200)]
    results += [result("c", 100.0), result("ox", 50.0, depth=4)]
    (rows,) = report.group(results).values()
    text = report.table("p", "t", rows, ["ops_s"])
    assert "Medians of 1 to 3 runs" in text
    assert table_rows(text) == [["m", "200", "100", "-", "2.00", "-"],
                                ["m depth=4", "-", "-", "50", "-", "-"]]
    by_time = report.table("p", "t", rows, ["p50_us"], "p50_us")
    assert table_rows(by_time)[0][-2] == "2.00"  # half the time is twice as good
