# SPDX-License-Identifier: Apache-2.0
"""What people are told of xsdump's arguments is what the parser takes: the manual page and bash's
completion name every command and option, and no other.

Method: the parser's own table; the page as man formats it and as it is written; the completion's
function in a bash, called as bash calls it."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tools.in_process import dump
from tools.xsdump import make_parser

TOOLS = Path(__file__).resolve().parents[2] / "tools"
MANUAL, COMPLETION = TOOLS / "xsdump.1", TOOLS / "xsdump.bash-completion"
ASK = """source "$1"; COMP_LINE=$2; COMP_POINT=${#COMP_LINE}; COMP_WORDBREAKS=$' \\t\\n"><=;|&(:'
_xsdump; ((${#COMPREPLY[@]})) && printf '%s\\n' "${COMPREPLY[@]}"; true"""


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """All spellings of a parser's options."""
    return {word for action in parser._actions for word in action.option_strings}


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands."""
    (found,) = (action for action in make_parser()._actions
                if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


COMMON = options_of(make_parser())
OWN = {name: options_of(parser) - COMMON for name, parser in commands().items()}


def in_manual(part: str) -> set[str]:
    """The options that a part of the page describes: on lines behind .TP."""
    tags = re.findall(r"^\.TP\n(.*)$", part, re.MULTILINE)
    return {word.replace("\\", "") for tag in tags
            for word in re.findall(r"(?<![\w-])(?:\\-){1,2}[a-z][a-z\\-]*", tag)}


def section(title: str) -> str:
    """A section of the page as it is written."""
    _, _, rest = MANUAL.read_text().partition(f"\n.SH {title}\n")
    return rest.partition("\n.SH ")[0]


def test_the_manual_names_every_command_and_option() -> None:
    assert in_manual(section("OPTIONS")) == COMMON
    parts = re.split(r"^\.SS (.*)\n", section("COMMANDS"), flags=re.MULTILINE)[1:]
    described = dict(zip(parts[::2], parts[1::2], strict=True))
    assert described.keys() == OWN.keys()
    assert {name: in_manual(part) for name, part in described.items()} == OWN


def test_the_manual_can_be_formatted() -> None:
    """Without a warning, and the last line is there."""
    if shutil.which("man") is None:
        pytest.skip("there is no man")
    done = subprocess.run(["man", "--warnings", "-l", str(MANUAL)], capture_output=True, text=True,
                          check=False, env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0 and done.stderr == ""
    assert "restore new.region" in done.stdout
    if shutil.which("groff"):
        done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", str(MANUAL)], capture_output=True,
                              text=True, check=False)
        assert done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize("name", OWN)
def test_help(name: str) -> None:
    """Every command has one; where moments are named, it says how."""
    code, text = dump("x", name, "--help")
    assert code == 0 and text.startswith(f"usage: xsdump SOURCE {name}")
    assert ("moments:" in text) == ("MOMENT" in text or name == "diff")


def offered(line: str) -> list[str]:
    """What bash offers behind a line."""
    done = subprocess.run(["bash", "-c", ASK, "bash", str(COMPLETION), line], capture_output=True,
                          text=True, check=False, timeout=30)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.splitlines()


def test_commands_are_offered() -> None:
    assert set(offered("xsdump R ")) == OWN.keys()
    assert offered("xsdump --json --color never R ver") == ["verify"]
    assert offered("xsdump domain:1 cra") == ["crashes"]
    assert set(offered("xsdump -")) == set(offered("xsdump R -")) == COMMON - {"-h"}


@pytest.mark.parametrize("name", OWN)
def test_options_are_offered(name: str) -> None:
    assert set(offered(f"xsdump R {name} -")) == OWN[name] | COMMON - {"-h"}
    assert "--" not in "".join(offered(f"xsdump R {name} x"))


def test_values_are_offered() -> None:
    assert offered("xsdump R tree --at l") == ["life:"]
    assert offered("xsdump R tree --at life:") == [""]  # behind the colon: anything
    assert offered("xsdump R log --since ") == ["end", "life:", "crash:", "~"]
    assert offered("xsdump R diff cr") == ["crash:"]
    assert offered("xsdump R restore --stream-version ") == ["1", "2"]
    assert offered("xsdump R git --object-format sha2") == ["sha256"]
    assert offered("xsdump R --color a") == ["auto", "always"]
    assert offered("xsdump R log -n ") == offered("xsdump R blame /a") == []


def test_sources_and_files_are_offered(tmp_path: Path) -> None:
    (tmp_path / "new.region").touch()
    assert offered(f"xsdump {tmp_path}/n") == [f"{tmp_path}/new.region"]
    assert offered(f"xsdump R restore --force {tmp_path}/n") == [f"{tmp_path}/new.region"]
    assert offered("xsdump dom") == ["domain:"]
    name = f"/dev/shm/tardigrade-test-{secrets.token_hex(4)}"
    paths = [Path(name + end) for end in (
        ".region", ".region.damaged-1", ".memory", "$(echo; cat).region")]  # never executed
    try:
        for path in paths:
            path.touch()
        assert {str(path) for path in paths} <= set(offered("xsdump "))
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def test_the_completion_carries_the_licence_too() -> None:
    for file in (COMPLETION, MANUAL):
        assert "SPDX-License-Identifier: Apache-2.0" in file.read_text().splitlines()[0]
