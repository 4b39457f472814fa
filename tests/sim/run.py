# SPDX-License-Identifier: Apache-2.0
"""python -m tests.sim.run --seed N --guests 300 --steps N --crashes N: one world, or many.

With --worlds, the seeds from N on. A failure prints what was broken, what the server said last, and
the command that plays it again."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tests.sim.world import KINDS, Options, World, frozen_time


def play(seed: int, options: Options, progress_every: int = 0) -> World:
    """One world from the beginning to the end. Raises what it finds; the world is on the
    exception as `world`."""
    with frozen_time() as clock:
        world = World(seed, options, clock)
        try:
            for _ in world.run():
                if progress_every and world.time.tick % progress_every == 0:
                    print(summary(world), flush=True)
        except BaseException as error:
            error.world = world  # type: ignore[attr-defined]
            raise
        finally:
            world.close()
    return world


def summary(world: World) -> str:
    """One line."""
    return (f"seed {world.seed} tick {world.time.tick}: {world.time.served} turns, "
            f"{world.lives.number} lives, {world.counts['groups']} groups, "
            f"{world.counts['guests']} guests booted, {world.counts['hostile']} hostile, "
            f"{world.counts['answers']} answers, {len(world.guests)} guests now")


def command(seed: int, options: Options) -> str:
    """What plays a world again."""
    kinds = "" if options.kinds == KINDS else " --kinds " + ",".join(
        kind.__name__ for kind in options.kinds)
    return (f"python -m tests.sim.run --seed {seed} --guests {options.guests} --steps "
            f"{options.steps} --crashes {options.crashes} --hostile {options.hostile_share} "
            f"--sparing {options.sparing_share}{kinds}")


def tell(world: World) -> None:
    """What there is to know of a world that broke."""
    print("the server said last:\n  " + "\n  ".join(world.lives.said.lines))
    print(f"at {summary(world)}\nreplay: {command(world.seed, world.options)}", flush=True)


def one_world(seed: int, options: Options, progress_every: int) -> None:
    """Play, and say how it went."""
    began = time.perf_counter()
    try:
        world = play(seed, options, progress_every)
    except BaseException as error:
        if hasattr(error, "world"):
            tell(error.world)
        raise
    print(f"{summary(world)}; crashes {sum(world.crashes.values())}; "
          f"{time.perf_counter() - began:.1f} s: all held", flush=True)


def main() -> int:
    """The exit code: 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description="a seeded world around a dying server")
    for name, default in (("seed", 1), ("guests", 300), ("steps", 5000), ("crashes", 100),
                          ("worlds", 1), ("progress", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--hostile", type=float, default=0.25)
    parser.add_argument("--sparing", type=float, default=0.0)
    parser.add_argument("--kinds", default="")
    given = parser.parse_args()
    kinds = tuple(kind for kind in KINDS if not given.kinds
                  or kind.__name__ in given.kinds.split(","))
    options = Options(given.guests, given.steps, given.crashes, given.hostile, given.sparing,
                      kinds)
    if given.worlds == 1:
        one_world(given.seed, options, given.progress)
        return 0
    failed = 0
    for seed in range(given.seed, given.seed + given.worlds):  # each in a process of its own
        words = [*command(seed, options).split()[1:], "--progress", str(given.progress)]
        failed += subprocess.run([sys.executable, *words], check=False).returncode != 0
    print(f"{failed} of {given.worlds} worlds failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
