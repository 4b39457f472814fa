# SPDX-License-Identifier: Apache-2.0
"""xenstore-control of Debian's xen-utils: check, help, quota, quota-soft, print, memreport, log,
logfile, and what it does with a command that does not exist.

Properties: output and exit code are those of C xenstored, but for the help's list of commands and
for what C xenstored does wrong; settings survive kill -9.
Method: the program on both servers; effects are looked for where they must show: the log, a file.
Cannot show: that a quota is enforced, because the program's connection is privileged."""

from __future__ import annotations

import re
from pathlib import Path

from tests.clients.subjects import Ours, Subject, wait_until

CONTROL = "xenstore-control"
COMMANDS = ["check", "log", "logfile", "memreport", "print", "quota", "quota-soft", "help"]
WRONG_COMMANDS = [
    "bogus", "check 1", "help 1", "log", "log maybe", "print", "print a b", "quota set nodes",
    "quota set nodes 0", "quota set nodes x", "quota set bogus 1", "quota-soft set",
    "quota-soft set nodes 1", "memreport /nonexistent/directory/file"]
NOT_SUPPORTED = "Command not supported. Valid commands are:\n"
SETTING = re.compile(r"([a-z-]+) *: +(\d+) (.+)")
USAGE = re.compile(r"([a-z-]+) *: +(\d+)")
# Our names are those of GET_QUOTA in Xen's documentation; xenstored 4.17 has another one.
RENAMED = {"permissions": "node-permissions"}


def commands_of(text: str) -> list[str]:
    """The commands that a help text names."""
    return [line.split("\t")[0] for line in text.splitlines() if "\t" in line]


def settings(text: str) -> dict[str, tuple[int, str]]:
    """Names, values and meanings of a list of quotas."""
    head, *lines = text.strip().splitlines()
    assert head == "Quota settings:"
    matches = [SETTING.fullmatch(line) for line in lines]
    assert all(matches), text
    return {RENAMED.get(match[1], match[1]): (int(match[2]), match[3])
            for match in matches if match}


def test_check(any_subject: Subject) -> None:
    assert any_subject.must(CONTROL, "check") == "OK\n"
    any_subject.must("xenstore-write", "/a/b/c", "1", "/a/d", "2")
    any_subject.must("xenstore-rm", "/a/b")
    assert any_subject.must(CONTROL, "check") == "OK\n"


def test_help_names_what_there_is(subject: Subject) -> None:
    named = commands_of(subject.must(CONTROL, "help"))
    assert [command for command in named if command != "live-update"] == COMMANDS


def test_wrong_commands_bring_the_help(subject: Subject) -> None:
    before = subject.must(CONTROL, "quota")
    for command in WRONG_COMMANDS:
        done = subject.run(CONTROL, *command.split())
        assert (done.returncode, done.stdout) == (3, ""), command
        assert done.stderr.startswith(NOT_SUPPORTED), command
        assert set(commands_of(done.stderr)) - {"live-update"} == set(COMMANDS), command
    assert subject.must(CONTROL, "quota") == before


def test_without_a_command(subject: Subject) -> None:
    done = subject.run(CONTROL)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage:")


def test_quotas_have_the_defaults_of_c(subject: Subject) -> None:
    assert settings(subject.must(CONTROL, "quota")) == {
        "nodes": (1000, "Nodes per domain"),
        "watches": (128, "Watches per domain"),
        "transactions": (10, "Transactions per domain"),
        "outstanding": (20, "Outstanding requests per domain"),
        "transaction-nodes": (1024, "Max. number of accessed nodes per transaction"),
        "memory": (2621440, "Total Xenstore memory per domain (error level)"),
        "node-size": (2048, "Max. size of a node"),
        "path-max": (2048, "Max. length of a node path"),
        "node-permissions": (5, "Max. number of permissions per node"),
    }
    assert settings(subject.must(CONTROL, "quota-soft")) == {
        "memory": (2097152, "Total Xenstore memory per domain (warning level)")}


def test_quotas_are_set(subject: Subject) -> None:
    assert subject.must(CONTROL, "quota", "set", "nodes", "5") == "OK\n"
    assert subject.must(CONTROL, "quota-soft", "set", "memory", "77") == "OK\n"
    assert settings(subject.must(CONTROL, "quota"))["nodes"][0] == 5
    assert settings(subject.must(CONTROL, "quota"))["memory"][0] == 2621440
    assert settings(subject.must(CONTROL, "quota-soft"))["memory"][0] == 77


def test_quotas_survive(ours: Ours) -> None:
    ours.must(CONTROL, "quota", "set", "nodes", "5")
    ours.must(CONTROL, "quota-soft", "set", "memory", "77")
    before = [ours.must(CONTROL, name) for name in ("quota", "quota-soft")]
    ours.crash()
    assert [ours.must(CONTROL, name) for name in ("quota", "quota-soft")] == before
    assert settings(before[0])["nodes"][0] == 5


def test_usage_of_a_domain(any_subject: Subject) -> None:
    any_subject.must("xenstore-write", "/a/b", "1")
    head, *lines = any_subject.must(CONTROL, "quota", "0").strip().splitlines()
    assert head == "Domain 0:"
    usage = {match[1]: int(match[2]) for match in map(USAGE.fullmatch, lines) if match}
    assert usage.keys() == {"nodes", "watches", "transactions", "outstanding", "memory"}
    assert (usage["nodes"], usage["watches"], usage["transactions"]) == (5, 0, 0)
    assert usage["memory"] > 0


def test_usage_of_a_domain_that_does_not_exist(subject: Subject) -> None:
    done = subject.run(CONTROL, "quota", "7")
    assert (done.returncode, done.stderr) == (3, "Error 2 when trying to execute command.\n")


def test_usage_of_no_domain(ours: Ours) -> None:
    """C xenstored answers for domain 0 whatever the word is."""
    done = ours.run(CONTROL, "quota", "zero")
    assert done.returncode == 3 and done.stderr.startswith(NOT_SUPPORTED)


def test_print_goes_to_the_log(ours: Ours) -> None:
    assert ours.must(CONTROL, "print", "a word from the operator") == "OK\n"
    wait_until(lambda: "a word from the operator\n" in ours.server.log, "the text in the log")


def test_log_of_requests_to_a_file(subject: Subject, tmp_path: Path) -> None:
    log = tmp_path / "requests"
    assert subject.must(CONTROL, "logfile", str(log)) == "OK\n"
    subject.must("xenstore-write", "/before", "1")
    assert subject.must(CONTROL, "log", "on") == "OK\n"
    subject.must("xenstore-write", "/during", "2")
    assert subject.must(CONTROL, "log", "off") == "OK\n"
    subject.must("xenstore-write", "/after", "3")
    text = log.read_text()
    assert "/during" in text
    assert "/after" not in text
    if isinstance(subject, Ours):  # C xenstored logs from the first "logfile" on
        assert "/before" not in text


def test_logfile_that_cannot_be_written(ours: Ours) -> None:
    """C xenstored says OK, and is without a log from then on."""
    done = ours.run(CONTROL, "logfile", "/nonexistent/directory/file")
    assert done.returncode == 3 and done.stderr.startswith(NOT_SUPPORTED)
    ours.must(CONTROL, "print", "still here")
    wait_until(lambda: "still here\n" in ours.server.log, "the text in the log")


def test_memreport_to_a_file(subject: Subject, tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert subject.must(CONTROL, "memreport", str(report)) == "OK\n"
    assert len(report.read_text().splitlines()) > 5


def test_memreport(ours: Ours) -> None:
    """C xenstored prints it only after a logfile was named, and into that."""
    ours.must("xenstore-write", "/a/b", "1")
    text = ours.must(CONTROL, "memreport")
    facts = dict(line.split(": ", 1) for line in text.strip().splitlines())
    assert facts["nodes"] == "5"
    assert facts["clients"] == "1"
    assert facts["watches"] == "0"
    assert int(facts["max resident"].split()[0]) > 1000
