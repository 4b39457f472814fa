# SPDX-License-Identifier: Apache-2.0
"""The Kraftfile: what kraft's schema v0.6 asks for, and what is said elsewhere, too. Method: a
reader of as much YAML as is in it; the keys and types of the schema, by a table; options and paths
against image/unikraft; `make image BASE=unikraft` where kraft is missing.

Cannot show: that kraft takes it; docs/UNIKRAFT.md says what was tried."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "image/unikraft"
RELEASE = re.compile(r"0\.\d+\.\d+")
TOP = {"spec": str, "name": str, "rootfs": str, "cmd": list, "unikraft": dict, "libraries": dict,
       "targets": list}
COMPONENT = {"source": str, "version": str, "kconfig": dict}
TARGET = {"name": str, "platform": str, "architecture": str, "kconfig": dict}


def scalar(text: str) -> str | int:
    """A value as YAML reads it: no y, n, yes or no without quotes."""
    if text[:1] in "'\"":
        assert text[-1] == text[0], text
        return text[1:-1]
    assert text.lower() not in ("y", "n", "yes", "no", "on", "off", "true", "false"), text
    return int(text) if text.isdecimal() else text


def parse(lines: list[tuple[int, str]]) -> Any:
    """Mappings, lists of mappings, scalars; `lines`: indentation and text, from which what is taken
    is removed."""
    indent, first = lines[0]
    if first.startswith("- "):
        found_list = []
        while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
            lines[0] = (indent + 2, lines[0][1][2:])
            found_list.append(parse(lines))
        return found_list
    found: dict[str, Any] = {}
    while lines and lines[0][0] == indent:
        key, _, value = lines.pop(0)[1].partition(":")
        assert key not in found, key
        found[key] = scalar(value.strip()) if value.strip() else parse(lines)
    assert not lines or lines[0][0] < indent, lines[0]
    return found


def read(text: str) -> dict[str, Any]:
    """A Kraftfile."""
    lines = [(len(line) - len(line.lstrip()), line.strip()) for line in text.splitlines()
             if line.strip() and not line.lstrip().startswith("#")]
    found = parse(lines)
    assert isinstance(found, dict) and not lines
    return found


@pytest.fixture
def kraftfile() -> dict[str, Any]:
    return read((ROOT / "Kraftfile").read_text("utf-8"))


def check(found: dict[str, Any], schema: dict[str, type], needed: set[str]) -> None:
    """Only keys of the schema, with values of its types."""
    assert needed <= set(found) <= set(schema), found
    for key, value in found.items():
        assert isinstance(value, schema[key]), (key, value)
    for option, value in found.get("kconfig", {}).items():
        assert re.fullmatch(r"CONFIG_[A-Z0-9_]+", option) and isinstance(value, (str, int)), option


def test_it_has_the_schema(kraftfile: dict[str, Any]) -> None:
    check(kraftfile, TOP, {"spec", "name", "rootfs", "unikraft", "libraries", "targets"})
    assert kraftfile["spec"] == "v0.6"
    check(kraftfile["unikraft"], COMPONENT, {"version"})
    for library in kraftfile["libraries"].values():
        check(library, COMPONENT, set())
    for target in kraftfile["targets"]:
        check(target, TARGET, {"platform", "architecture"})
    assert [(one["platform"], one["architecture"]) for one in kraftfile["targets"]] == [
        ("xen", "x86_64"), ("qemu", "x86_64")]


def test_unikraft_and_its_libraries_are_releases(kraftfile: dict[str, Any]) -> None:
    text = (ROOT / "docs/UNIKRAFT.md").read_text("utf-8")
    parts = {"unikraft": kraftfile["unikraft"], **kraftfile["libraries"]}
    assert "source" in parts.pop("tardigrade")
    for name, part in parts.items():
        assert RELEASE.fullmatch(part["version"]) and "source" not in part
        assert f"{name} {part['version']}" in text, name


def test_what_it_names_is_there(kraftfile: dict[str, Any]) -> None:
    source = ROOT / kraftfile["libraries"]["tardigrade"]["source"]
    assert source.resolve() == LIBRARY
    assert kraftfile["rootfs"] == "./build/unikraft/rootfs"  # Makefile's OUT, and rootfs.py's
    assert "OUT ?= $(ROOT)/build/unikraft" in (LIBRARY / "Makefile").read_text("utf-8")
    assert "build/unikraft/sources" in (LIBRARY / "Makefile.uk").read_text("utf-8")


def test_our_options_are_those_of_our_config(kraftfile: dict[str, Any]) -> None:
    config = (LIBRARY / "Config.uk").read_text("utf-8")
    ours = {f"CONFIG_{name}" for name in re.findall(r"(?m)^(?:menu)?config (\w+)", config)}
    named = {option for part in [kraftfile["unikraft"], *kraftfile["libraries"].values()]
             for option in part.get("kconfig", {}) if "TARDIGRADE" in option}
    assert named <= ours and "CONFIG_LIBTARDIGRADE" in named
    refused = re.findall(r"\$\(CONFIG_(\w+)\)", re.findall(
        r"(?m)^ifneq (.*)", (LIBRARY / "Makefile.uk").read_text("utf-8"))[0])
    options = {**kraftfile["unikraft"]["kconfig"], **kraftfile["libraries"]["python3"]["kconfig"]}
    assert refused and all(options[f"CONFIG_{name}"] == "n" for name in refused)


def test_the_makefile_uk_names_what_is_there() -> None:
    text = (LIBRARY / "Makefile.uk").read_text("utf-8")
    sources = re.findall(r"\$\(LIBTARDIGRADE_BASE\)/([\w./]+\.[cS])", text)
    assert sources and all((LIBRARY / source).is_file() for source in sources)
    named = {Path(source).name for source in sources}
    assert {file.name for file in LIBRARY.glob("*.[cS]")} <= named


def test_the_end_of_the_machine_is_taken_over_on_both_platforms() -> None:
    wrap = r"(?m)^(\w+)_LDFLAGS-\$\(CONFIG_LIBTARDIGRADE\) \+= -Wl,--wrap=ukplat_terminate$"
    assert re.findall(wrap, (LIBRARY / "Makefile.uk").read_text("utf-8")) == ["XEN", "KVM"]
    assert "__wrap_ukplat_terminate" in (LIBRARY / "exportsyms.uk").read_text("utf-8").split()


def test_without_kraft_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "rootfs.cpio").touch()
    later = os.stat(ROOT / "Makefile").st_mtime + 1e6
    os.utime(tmp_path / "rootfs.cpio", (later, later))
    done = subprocess.run(
        ["make", "-C", str(LIBRARY), f"OUT={tmp_path}", "-o", f"{tmp_path}/sources/fetched"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, capture_output=True, text=True,
        timeout=60, check=False)
    assert done.returncode == 2
    assert "kraft is not installed" in done.stderr and "docs/UNIKRAFT.md" in done.stderr


def test_another_python_does_not_make_the_root_file_system(tmp_path: Path) -> None:
    if sys.version_info[:2] == (3, 10):
        pytest.skip("this is the one")
    done = subprocess.run([sys.executable, LIBRARY / "rootfs.py", ROOT, tmp_path, tmp_path],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "3.10" in done.stderr and not any(tmp_path.iterdir())


@pytest.mark.parametrize("text", [
    "spec: v0.6\nunikraft:\n  kconfig:\n    CONFIG_X: y\n", "a: 1\na: 2\n", "a: 1\n   b: 2\n"])
def test_what_the_reader_refuses(text: str) -> None:
    with pytest.raises(AssertionError):
        read(text)
