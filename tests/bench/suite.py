# SPDX-License-Identifier: Apache-2.0
"""Measure servers side by side: every workload on each of them in turn, so that noise hits all
alike; then the next workload; then the whole again. One markdown table per plan on stdout.

S1. Servers share one CPU and the client has another one, where there is another one.
S2. A failed run is told, counted, and never a figure; the servers that can be are restarted.
Knows nothing of what a workload does: that is xsbench. README.md is the manual."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tests.bench import plans, report
from tests.bench.contestants import (
    OURS,
    REFERENCES,
    SPECS,
    Contestant,
    ContestantError,
    make,
)
from tests.bench.plans import Plan
from tests.bench.report import Result
from tests.oracle import oracle, packages

HERE = Path(__file__).resolve().parent
RAM_DIRECTORY = "/dev/shm"
EXIT_FAILURES = 1
EXIT_USAGE = 2
EXIT_CANNOT_START = 3
EXIT_INTERRUPTED = 130

EXAMPLES = """examples:
  python -m tests.bench.suite                            a short selection, about 2 minutes
  python -m tests.bench.suite --plan micro --reps 5      all workloads of one plan
  python -m tests.bench.suite --plan crowd tardigrade c  without oxenstored
  python -m tests.bench.suite --plan same --seconds 0.05 --reps 1    does it run at all?
  python -m tests.bench.suite --plan scale --domains 1,100 --out r.jsonl
  python -m tests.bench.report r.jsonl --columns ops_s,rss_kb

exit codes: 0 all was measured, 1 something failed (the tables show what is left),
2 wrong arguments, 3 nothing can be measured here (one line says why), 130 interrupted
"""


class Suite:
    """One run of the program. `workloads()` of every plan are measured in order."""

    def __init__(self, options: argparse.Namespace, program: Path, out: TextIO | None,
                 work_dir: Path) -> None:
        self.results: list[Result] = []
        self.failure_count = 0
        self._options = options
        self._program = program
        self._out = out
        self._work_dir = work_dir
        self._began_s = time.monotonic()

    def run(self, plan: Plan) -> None:
        """Measure one plan and print its table, also if interrupted. Raises ContestantError."""
        results: list[Result] = []
        contestants = [make(spec, self._work_dir, self._options.server_cpu, self._options.fifo)
                       for spec in self._options.servers]
        try:
            for result in self._measure(plan, contestants):
                results.append(result)
                if self._out is not None:
                    self._out.write(json.dumps(result) + "\n")
                    self._out.flush()
        finally:
            for contestant in contestants:
                self._stop(contestant)
            for name, rows in report.group(results).items():
                columns = self._options.columns or plan.columns
                print(report.table(name, plan.text, rows, columns, plan.ratio), flush=True)

    def _measure(self, plan: Plan, contestants: list[Contestant]) -> Iterator[Result]:
        started: set[str] = set()
        for rep in range(self._options.reps):
            for workload in self._workloads(plan):
                words = plans.adjust(workload, self._options.seconds, self._options.domains)
                told = []
                for contestant in contestants:
                    if plan.is_fresh or contestant.name not in started:
                        contestant.start(plan.has_domains)
                        started.add(contestant.name)
                    results, problem = self._run_once(plan, contestant, words)
                    for result in results:
                        result.update(plan=plan.name, args=" ".join(words), rep=rep)
                        yield result
                    told.append(f"{contestant.name} {brief(results, plan)}")
                    if problem:
                        self._fail(f"{contestant.name}: xsbench {' '.join(words)}: {problem}")
                    if plan.is_fresh or (problem and contestant.can_restart):
                        self._stop(contestant)
                        started.discard(contestant.name)
                self._progress(f"{plan.name} {rep + 1}/{self._options.reps} "
                               f"{' '.join(words)}: {', '.join(told)}")

    def _workloads(self, plan: Plan) -> tuple[str, ...]:
        return plan.short if self._options.is_short and plan.short else plan.workloads

    def _run_once(self, plan: Plan, contestant: Contestant,
                  words: list[str]) -> tuple[list[Result], str]:
        """The results of one run, and what went wrong with it, if anything."""
        cpu = self._options.server_cpu if plan.is_on_one_cpu else self._options.client_cpu
        command = [*oracle.placement_prefix(cpu, self._options.fifo), str(self._program),
                   "-s", contestant.socket_path, "-P", str(contestant.pid),
                   "-T", contestant.name, *words]
        if contestant.sim_path:
            command[-len(words):-len(words)] = ["-S", contestant.sim_path]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            try:
                output, complaint = process.communicate(timeout=self._options.timeout)
                problem = "" if process.returncode == 0 else (
                    complaint.strip()[-300:] or f"exit code {process.returncode}")
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
                problem = f"no end after {self._options.timeout:g} s"
            except BaseException:
                process.kill()
                raise
        return [json.loads(line) for line in output.splitlines() if line.endswith("}")], problem

    def _stop(self, contestant: Contestant) -> None:
        try:
            contestant.stop()
        except ContestantError as error:
            self._fail(str(error))

    def _fail(self, text: str) -> None:
        self.failure_count += 1
        print(f"FAILED {text}", file=sys.stderr, flush=True)

    def _progress(self, text: str) -> None:
        if not self._options.quiet:
            print(f"[{time.monotonic() - self._began_s:4.0f} s] {text}", file=sys.stderr,
                  flush=True)


def brief(results: list[Result], plan: Plan) -> str:
    """One figure of a run, for the progress line."""
    if not results:
        return "-"
    value = report.show(float(results[0][plan.ratio]))
    return f"{value} {report.UNITS.get(plan.ratio, plan.ratio)}"


def describe(options: argparse.Namespace) -> str:
    """When and on what this was measured."""
    today = datetime.date.today().isoformat()
    model = "unknown CPU"
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    where = f"servers on CPU {options.server_cpu}, client on CPU {options.client_cpu}"
    return (f"{today}; {os.cpu_count()} CPUs, {model}; Linux "
            f"{'.'.join(platform.release().split('.')[:2])}, Python {platform.python_version()}; "
            f"{where}{', real-time priority' if options.fifo else ''}\n")


def prepare(options: argparse.Namespace) -> Path:
    """Packages where they are needed, and xsbench compiled. Raises OracleError."""
    for tool in ("taskset", "chrt") if options.fifo else ("taskset",):
        if not shutil.which(tool):
            raise oracle.OracleError(f"{tool} is needed; run: sudo apt-get install util-linux")
    if any(spec in REFERENCES for spec in options.servers):
        oracle.fetch()
    return packages.compile_c("xsbench", sorted(HERE.glob("*.c")))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, with CPUs chosen."""
    listing = "\n".join(f"  {plan.name + ('*' if plan.is_fresh else ''):11}{plan.text}"
                        for plan in plans.ALL)
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.suite", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measure xenstore servers side by side.",
        epilog=f"SERVER is one of\n{SPECS}\n\nplans (* = the servers are restarted before every "
               f"run):\n{listing}\n\n{EXAMPLES}")
    parser.add_argument("servers", nargs="*", metavar="SERVER", default=[OURS, *REFERENCES],
                        help="default: tardigrade c ox")
    parser.add_argument("--plan", action="append", choices=sorted(plans.BY_NAME), metavar="PLAN",
                        help="what to measure, again for more; default: a selection of "
                             + " ".join(plan.name for plan in plans.SHORT))
    parser.add_argument("--short", dest="is_short", action="store_true",
                        help="of the plans only the selection that the default runs")
    parser.add_argument("--reps", type=int, default=3, help="default %(default)s")
    parser.add_argument("--seconds", type=float, help="duration of each workload")
    parser.add_argument("--domains", metavar="N,N", help="domain counts, e.g. 1,10,100")
    parser.add_argument("--columns", type=lambda text: tuple(text.split(",")),
                        help="figures to show, e.g. ops_s,p99_us,max_us,rss_kb")
    parser.add_argument("--out", metavar="FILE", help="append all results, as JSON lines")
    parser.add_argument("--server-cpu", type=int, help="default: the first CPU allowed")
    parser.add_argument("--client-cpu", type=int, help="default: the second CPU, if there is one")
    parser.add_argument("--fifo", action="store_true",
                        help="real-time priority for client and servers (needs root)")
    parser.add_argument("--timeout", type=float, default=240, metavar="S",
                        help="of one run (default %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress lines")
    options = parser.parse_args(arguments)
    cpus = sorted(os.sched_getaffinity(0))
    if options.server_cpu is None:
        options.server_cpu = cpus[0]
    if options.client_cpu is None:
        options.client_cpu = next((cpu for cpu in cpus if cpu != options.server_cpu),
                                  options.server_cpu)
    options.is_short = options.is_short or not options.plan
    options.plans = [plans.BY_NAME[name] for name in options.plan or [
        plan.name for plan in plans.SHORT]]
    check(parser, options, cpus)
    return options


def check(parser: argparse.ArgumentParser, options: argparse.Namespace, cpus: list[int]) -> None:
    """Complain about arguments that do not fit together; does not return then."""
    if options.reps < 1 or options.timeout <= 0 or (options.seconds or 1) <= 0:
        parser.error("--reps, --seconds and --timeout must be positive")
    for cpu in (options.server_cpu, options.client_cpu):
        if cpu not in cpus:
            parser.error(f"CPU {cpu} may not be used; allowed are {' '.join(map(str, cpus))}")
    if len({spec.partition('=')[0] for spec in options.servers}) < len(options.servers):
        parser.error("two servers of one name")
    for spec in options.servers:
        try:
            contestant = make(spec, Path("."), None, False)
        except ValueError as error:
            parser.error(str(error))
        for plan in options.plans:
            if plan.is_fresh and not contestant.can_restart:
                parser.error(f"plan {plan.name} restarts servers: use NAME=cmd:'...' for {spec}")
            if plan.has_rings and not contestant.can_restart:
                parser.error(f"plan {plan.name} has guests on rings: use NAME=cmd:'...' for {spec}")


def main(arguments: list[str]) -> int:
    """The command; returns the exit code."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    in_ram = RAM_DIRECTORY if os.access(RAM_DIRECTORY, os.W_OK) else None
    out = None
    try:
        program = prepare(options)
        out = open(options.out, "a", encoding="utf-8") if options.out else None
        with tempfile.TemporaryDirectory(prefix="xsbench-", dir=in_ram) as work_dir:
            suite = Suite(options, program, out, Path(work_dir))
            print(describe(options), flush=True)
            for plan in options.plans:
                suite.run(plan)
    except (oracle.OracleError, ContestantError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_CANNOT_START
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        if out is not None:
            out.close()
    return EXIT_FAILURES if suite.failure_count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
