# SPDX-License-Identifier: Apache-2.0
"""pyxs 0.4.1, a client library from PyPI, over the unix socket.

Properties: reading, writing, directories, permissions, transactions (isolation, commit, conflict,
rollback) and monitors behave as the library documents, and as with C xenstored; a client notices a
crash, and a new one finds everything that was committed and nothing else.
Method: the library as its users use it, on both servers.
Cannot show: several threads in one connection beyond the router that the library has itself."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from pyxs import Client, PyXSError  # type: ignore[import-untyped]

from tests.clients.subjects import Ours, Subject, wait_until


@pytest.fixture
def client(subject: Subject) -> Iterator[Client]:
    with Client(unix_socket_path=str(subject.socket_path)) as connected:
        yield connected


@pytest.fixture
def other(subject: Subject) -> Iterator[Client]:
    with Client(unix_socket_path=str(subject.socket_path)) as connected:
        yield connected


def error_of(client: Client, method: str, *arguments: object) -> int:
    """The errno that a call is refused with."""
    with pytest.raises(PyXSError) as refused:
        getattr(client, method)(*arguments)
    return int(refused.value.args[0])


# -- nodes


def test_write_and_read(client: Client, other: Client) -> None:
    client.write(b"/a/b", b"value")
    client[b"/a/c"] = b"x" * 4000
    assert other.read(b"/a/b") == b"value"
    assert other[b"/a/c"] == b"x" * 4000
    assert client.read(b"/a") == b""
    assert error_of(client, "read", b"/missing") == errno.ENOENT
    assert client.read(b"/missing", b"default") == b"default"


def test_mkdir_and_list(client: Client) -> None:
    client.mkdir(b"/dir/sub")
    client.write(b"/dir/sub", b"kept")
    client.mkdir(b"/dir/sub")
    assert client.read(b"/dir/sub") == b"kept"
    client.write(b"/dir/first", b"1")
    assert client.list(b"/dir") == [b"sub", b"first"]
    assert client.list(b"/dir/sub") == []
    assert client.exists(b"/dir") and not client.exists(b"/nothing")
    assert error_of(client, "list", b"/nothing") == errno.ENOENT


def test_walk(client: Client) -> None:
    client.write(b"/w/a/x", b"1")
    client.write(b"/w/b", b"2")
    assert list(client.walk(b"/w")) == [
        (b"/w", b"", [b"a", b"b"]), (b"/w/a", b"", [b"x"]), (b"/w/a/x", b"1", []),
        (b"/w/b", b"2", [])]


def test_delete(client: Client) -> None:
    client.write(b"/d/a/b", b"1")
    client.delete(b"/d/a")
    assert client.list(b"/d") == []
    del client[b"/d/a"]  # no error: its parent exists
    assert error_of(client, "delete", b"/no/parent") == errno.ENOENT
    assert error_of(client, "delete", b"/") == errno.EINVAL


def test_perms(client: Client) -> None:
    client.write(b"/p/n", b"1")
    assert client.get_perms(b"/p/n") == [b"n0"]
    client.set_perms(b"/p/n", [b"b0", b"r5", b"w77", b"n3"])
    assert client.get_perms(b"/p/n") == [b"b0", b"r5", b"w77", b"n3"]
    client.write(b"/p/n/child", b"x")
    assert client.get_perms(b"/p/n/child") == [b"b0", b"r5", b"w77", b"n3"]
    assert client.get_perms(b"/p") == [b"n0"]
    assert error_of(client, "set_perms", b"/missing", [b"n0"]) == errno.ENOENT
    assert error_of(client, "get_perms", b"/missing") == errno.ENOENT


def test_domains(client: Client) -> None:
    assert client.get_domain_path(0) == b"/local/domain/0"
    assert client.get_domain_path(7) == b"/local/domain/7"
    assert client.is_domain_introduced(0)
    assert not client.is_domain_introduced(7)


# -- transactions


def test_transaction_is_isolated_and_then_seen(client: Client, other: Client) -> None:
    client.write(b"/t/old", b"1")
    client.transaction()
    client.write(b"/t/new", b"2")
    client.delete(b"/t/old")
    assert client.list(b"/t") == [b"new"]
    assert other.list(b"/t") == [b"old"]
    assert client.commit()
    assert other.list(b"/t") == [b"new"]
    assert other.read(b"/t/new") == b"2"


def test_transaction_conflict(client: Client, other: Client) -> None:
    client.write(b"/t/counter", b"1")
    client.transaction()
    counted = int(client.read(b"/t/counter"))
    other.write(b"/t/counter", b"10")
    client.write(b"/t/counter", b"%d" % (counted + 1))
    assert not client.commit()
    assert other.read(b"/t/counter") == b"10"
    client.transaction()
    client.write(b"/t/counter", b"%d" % (int(client.read(b"/t/counter")) + 1))
    assert client.commit()
    assert other.read(b"/t/counter") == b"11"


@pytest.mark.parametrize("change", ["create", "delete", "perms"])
def test_transaction_conflict_without_a_write(client: Client, other: Client, change: str) -> None:
    """What a transaction has seen is missing, is listed, or is permitted: that counts too."""
    client.write(b"/t/here", b"1")
    client.transaction()
    assert not client.exists(b"/t/there")
    assert client.list(b"/t") == [b"here"]
    assert client.get_perms(b"/t/here") == [b"n0"]
    if change == "create":
        other.write(b"/t/there", b"x")
    elif change == "delete":
        other.delete(b"/t/here")
    else:
        other.set_perms(b"/t/here", [b"r0"])
    client.write(b"/t/result", b"1")
    assert not client.commit()
    assert not other.exists(b"/t/result")


def test_transactions_that_do_not_meet(client: Client, other: Client) -> None:
    client.write(b"/t/one/v", b"1")
    client.write(b"/t/two/v", b"1")
    client.transaction()
    other.transaction()
    for connection, path in ((client, b"/t/one/v"), (other, b"/t/two/v")):
        connection.write(path, b"%d" % (int(connection.read(path)) + 1))
    assert client.commit()
    assert other.commit()
    assert (client.read(b"/t/one/v"), client.read(b"/t/two/v")) == (b"2", b"2")


def test_transactions_that_make_siblings(ours: Ours) -> None:
    """C xenstored refuses the second one; we do not: none saw the other."""
    path = str(ours.socket_path)
    with Client(unix_socket_path=path) as client, Client(unix_socket_path=path) as other:
        client.transaction()
        other.transaction()
        client.write(b"/t/one", b"1")
        other.write(b"/t/two", b"2")
        assert client.commit()
        assert other.commit()
        assert client.list(b"/t") == [b"one", b"two"]


def test_transaction_rollback(client: Client, other: Client) -> None:
    client.transaction()
    client.write(b"/t/x", b"1")
    client.rollback()
    assert not client.exists(b"/t")
    assert client.tx_id == 0
    assert not other.exists(b"/t")


def test_transaction_twice(client: Client) -> None:
    client.transaction()
    assert error_of(client, "transaction") == errno.EALREADY
    client.rollback()
    assert error_of(client, "commit") == errno.ENOENT


# -- monitors


def test_monitor(client: Client, other: Client) -> None:
    client.write(b"/m/a", b"1")
    with client.monitor() as monitor:
        monitor.watch(b"/m", b"token")
        events = monitor.wait()
        assert next(events) == (b"/m", b"token")
        other.write(b"/elsewhere", b"1")
        other.write(b"/m/a", b"2")
        assert next(events) == (b"/m/a", b"token")
        other.mkdir(b"/m/b/c")
        assert next(events) == (b"/m/b/c", b"token")
        other.set_perms(b"/m/a", [b"r0"])
        assert next(events) == (b"/m/a", b"token")
        other.delete(b"/m/a")
        assert next(events) == (b"/m/a", b"token")


def test_monitor_hears_a_transaction_at_its_commit(client: Client, other: Client) -> None:
    client.write(b"/m/inside", b"0")
    client.write(b"/m/outside", b"0")
    with client.monitor() as monitor:
        monitor.watch(b"/m", b"token")
        events = monitor.wait()
        assert next(events) == (b"/m", b"token")
        other.transaction()
        other.write(b"/m/inside", b"1")
        client.write(b"/m/outside", b"2")
        assert next(events) == (b"/m/outside", b"token")
        assert other.commit()
        assert next(events) == (b"/m/inside", b"token")
        other.transaction()
        other.write(b"/m/inside", b"2")
        other.rollback()
        client.write(b"/m/outside", b"3")
        assert next(events) == (b"/m/outside", b"token")


def test_monitor_of_two_paths_and_unwatch(client: Client, other: Client) -> None:
    with client.monitor() as monitor:
        monitor.watch(b"/one", b"1")
        monitor.watch(b"/two", b"2")
        events = monitor.wait()
        assert {next(events), next(events)} == {(b"/one", b"1"), (b"/two", b"2")}
        monitor.unwatch(b"/one", b"1")
        other.write(b"/one", b"x")
        other.write(b"/two", b"x")
        assert next(events) == (b"/two", b"2")
        assert monitor.watched == {b"/two"}
        assert error_of(monitor, "unwatch", b"/one", b"1") == errno.ENOENT
        assert error_of(monitor, "watch", b"/two", b"2") == errno.EEXIST


# -- the crash


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_crash(ours: Ours) -> None:
    """pyxs's router thread ends with an exception when the socket closes: that is its way."""
    path = str(ours.socket_path)
    before = Client(unix_socket_path=path)
    before.connect()
    before.write(b"/c/kept", b"1")
    before.set_perms(b"/c/kept", [b"b0", b"r5"])
    before.transaction()
    before.write(b"/c/committed/x", b"2")
    assert before.commit()
    before.transaction()
    before.write(b"/c/open", b"3")
    before.delete(b"/c/kept")
    ours.crash()
    wait_until(lambda: not before.router.is_connected, "the client notices")
    with Client(unix_socket_path=path) as after, after.monitor() as monitor:
        assert list(after.walk(b"/c")) == [
            (b"/c", b"", [b"kept", b"committed"]), (b"/c/kept", b"1", []),
            (b"/c/committed", b"", [b"x"]), (b"/c/committed/x", b"2", [])]
        assert after.get_perms(b"/c/kept") == [b"b0", b"r5"]
        monitor.watch(b"/c", b"token")
        events = monitor.wait()
        assert next(events) == (b"/c", b"token")
        after.transaction()
        after.write(b"/c/kept", b"4")
        assert after.commit()
        assert next(events) == (b"/c/kept", b"token")


def test_transaction_ids_are_never_given_out_again(ours: Ours) -> None:
    given = []
    for _ in range(4):
        with Client(unix_socket_path=str(ours.socket_path)) as client:
            for _ in range(3):
                given.append(client.transaction())
                client.rollback()
        ours.crash()
    assert len(set(given)) == len(given)
