# SPDX-License-Identifier: Apache-2.0
# A host's ordinary day with one server: dom0's own ring, the tools, a guest from birth to death,
# and another that powers off: Xen tells the server, the server tells the xl that waits for it.

start_server
start_services
check_tools
write_config guest 128
check xl-create xl create /tmp/guest.cfg
check_guest_up guest
check_traffic traffic guest "$TRAFFIC" 90
domid=$(domid_of guest)
check guest-home xenstore-read "/local/domain/$domid/data/t/total"
write_config quitter 96
sed -i 's/quiet/quiet power-off/' /tmp/quitter.cfg
check xl-create-quitter xl create /tmp/quitter.cfg
check_guest_up quitter
is_gone() { ! xl list "$1"; }
check_that xl-sees-power-off "$(domid_of quitter)" wait_until 60 is_gone quitter
check xl-destroy xl destroy guest
check_all_gone
