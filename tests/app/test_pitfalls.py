# SPDX-License-Identifier: Apache-2.0
"""The fifteen things that re-implementations get wrong (reference, section 9), one test for each,
as far as the core decides it. Method: the shortest script of rows that tells right from wrong.

Not the core's, so not here: the half-written event of 5, deaths (8, 11), INTRODUCE twice (12),
rings (14), whose tests come with them."""

from __future__ import annotations

from app import wire
from tests.app.world import house, nul


def test_1_an_event_may_precede_the_ok_of_its_own_request() -> None:
    house().run([("g1", "", "WATCH name t", "OK", "g1 name t"),
                 ("g1", "", "WRITE name v", "OK", "g1 name t"),
                 ("g1", "", "RM name", "OK", "g1 name t")])


def test_2_a_bad_letter_leaves_the_transaction_open_and_eagain_closes_it() -> None:
    house().run([
        ("d0", "", "START", "=t"), ("d0", "t", "READ /pub", b"pub"),
        ("d0", "t", "END X", "EINVAL"), ("d0", "t", "READ /pub", b"pub"),
        ("d0", "", "WRITE /pub v", "OK"),
        ("d0", "t", "END T", "EAGAIN"), ("d0", "t", "READ /pub", "ENOENT"),
    ])


def test_3_absences_and_listings_are_read_too() -> None:
    for reading in ("READ /none", "DIRECTORY /", "RM /none"):
        world = house()
        world.start("d0")
        world.ask("d0", reading, "t")
        world.run([("d0", "", "MKDIR /none", "OK"), ("d0", "t", "END T", "EAGAIN")])


def test_4_rm_of_what_is_missing_of_the_root_and_its_events() -> None:
    house().run([
        ("d0", "", "RM /pub/none", "OK"), ("d0", "", "RM /none/none", "ENOENT"),
        ("d0", "", "RM /", "EINVAL"),
        ("d0", "", "WATCH / r", "OK", "d0 / r"),
        ("d0", "", "WATCH /priv/x x", "OK", "d0 /priv/x x"),
        ("d0", "", "WATCH /priv/no n", "OK", "d0 /priv/no n"),
        ("d0", "", "RM /priv", "OK", "d0 /priv/x x, d0 /priv r"),
    ])


def test_5_the_first_event_always_comes() -> None:
    house().run([("g3", "", "WATCH /priv/x t", "OK", "g3 /priv/x t"),
                 ("g3", "", "WATCH /none/none t", "OK", "g3 /none/none t"),
                 ("g3", "", "WATCH @introduceDomain t", "OK", "g3 @introduceDomain t")])


def test_6_the_owner_has_all_rights_and_entry_0_is_the_default() -> None:
    world = house().run([
        ("d0", "", "SET_PERMS /pub/x n1", "OK"), ("g1", "", "WRITE /pub/x v", "OK"),
        ("g2", "", "READ /pub/x", "EACCES"),
        ("d0", "", "SET_PERMS /pub/x r1 n2 b2", "OK"), ("g3", "", "READ /pub/x", b"v"),
        ("g2", "", "READ /pub/x", "EACCES"),
    ])
    world.clients["g3"].target = 1
    world.run([("g3", "", "WRITE /pub/x w", "OK"), ("g3", "", "SET_PERMS /pub/x n1", "OK")])


def test_7_a_guest_owns_what_it_creates() -> None:
    world = house().run([
        ("g1", "", "WRITE /pub/new/deep v", "OK"),
        ("d0", "", "GET_PERMS /pub/new", b"n1\0b1\0r2\0"),
        ("d0", "", "GET_PERMS /pub/new/deep", b"n1\0b1\0r2\0"),
        ("d0", "", "WRITE /pub/new/zero v", "OK"),
        ("d0", "", "GET_PERMS /pub/new/zero", b"n1\0b1\0r2\0"),
    ])
    assert world.store.tree.owned_count(1) == 6
    world.clients["g3"].target = 1  # for another it still makes its own
    world.run([("g3", "", "MKDIR /local/domain/1/by-3", "OK"),
               ("d0", "", "GET_PERMS /local/domain/1/by-3", b"n3\0")])


def test_8_rights_are_written_before_a_domain_is_introduced() -> None:
    """The toolstack names a domain that exists and has no connection yet."""
    world = house()
    world.run([("d0", "", "SET_PERMS /pub n7", "OK"), ("d0", "", "WRITE /pub/seven v", "OK")])
    world.connect("g7", 7)
    world.run([("g7", "", "READ /pub/seven", b"v"), ("g7", "", "WRITE /pub/x v", "EACCES")])


def test_9_set_perms_is_heard_by_old_or_new_rights_rm_by_the_last() -> None:
    house().run([
        ("g1", "", "WATCH /priv/x t", "OK", "g1 /priv/x t"),
        ("d0", "", "SET_PERMS /priv/x r0", "OK", "g1 /priv/x t"),
        ("d0", "", "SET_PERMS /priv/x n0", "OK", "g1 /priv/x t"),
        ("d0", "", "SET_PERMS /priv/x n0 w1", "OK"),
        ("d0", "", "SET_PERMS /priv/x n0 r1", "OK", "g1 /priv/x t"),
        ("d0", "", "RM /priv/x", "OK", "g1 /priv/x t"),
    ])


def test_10_a_paths_length_does_not_depend_on_the_domid() -> None:
    world = house()
    world.ask("d0", "SET_QUOTA node-size 0")
    long = "a" * 2047
    world.run([("g1", "", f"MKDIR {long}", "OK"), ("g1", "", f"MKDIR {long}a", "EINVAL"),
               ("g2", "", f"READ /local/domain/1/{long}", "EACCES"),
               ("g2", "", f"READ /local/domain/54321/{long}", "EACCES")])


def test_11_resume_and_release_of_what_was_not_introduced() -> None:
    house().run([("d0", "", "RESUME 7", "ENOENT"), ("d0", "", "RELEASE 7", "ENOENT")])


def test_12_zero_length_is_legal_watch_ignores_tx_id_reset_inside_a_transaction() -> None:
    house().run([
        ("d0", "", (wire.XS_TRANSACTION_START, b""), "=t"),
        ("d0", 9999, "WATCH /pub t", "OK", "d0 /pub t"),
        ("d0", 9999, "UNWATCH /pub t", "OK"),
        ("d0", "t", (wire.XS_RESET_WATCHES, b""), "OK"),
        ("d0", "t", "END T", "ENOENT"),
        ("d0", "", (wire.XS_READ, b""), "EINVAL"),
    ])


def test_13_names_count_in_a_node_and_removal_is_always_allowed() -> None:
    world = house()
    world.is_paranoid = False
    for number in range(600):
        assert world.ask("d0", f"MKDIR /pub/{number}") == "OK"
    world.run([("g1", "", "MKDIR /pub/more", "ENOSPC"), ("g1", "", "RM /pub/7", "OK")])


def test_15_unknown_names_look_alikes_and_poison() -> None:
    """No EQUOTA; missing and forbidden are one; a failed create spoils its transaction."""
    world = house()
    world.ask("d0", "SET_QUOTA nodes 3")
    world.run([
        ("g1", "", "MKDIR more", "ENOSPC"),
        ("g3", "", "READ /priv/x", "EACCES"), ("g3", "", "READ /priv/none", "EACCES"),
        ("g1", "", "START", "=t"), ("g1", "t", "MKDIR more", "ENOSPC"),
        ("g1", "t", "END T", "ENOMEM"),
        ("g1", "", (wire.XS_WATCH, nul("name", "t")), "OK", "g1 name t"),
    ])
