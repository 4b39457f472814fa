# SPDX-License-Identifier: Apache-2.0
# A host's ordinary day with one server: dom0's own ring, the tools, a guest with a disk and a console
# from birth to death; another that powers off: Xen tells the server, the server tells the xl that
# waits for it; a PVH guest.

. /lab/attached.sh

start_server
start_services
load_backends
check_tools
write_config guest 128
give_disk guest /dev/ram0
check xl-create xl create /tmp/guest.cfg
check_guest_up guest
check_traffic traffic guest "$TRAFFIC" 90
check_disk disk guest xvda $DISK_A 0
attach_disk attach guest /dev/ram1
detach_disk detach guest
check console python3 /lab/console.py guest "typed for basics"
domid=$(domid_of guest)
check guest-home xenstore-read "/local/domain/$domid/data/t/total"
write_config quitter 96
sed -i 's/quiet/quiet power-off/' /tmp/quitter.cfg
check xl-create-quitter xl create /tmp/quitter.cfg
check_guest_up quitter
is_gone() { ! xl list "$1"; }
check_that xl-sees-power-off "$(domid_of quitter)" wait_until 60 is_gone quitter
write_config modern 96 pvh
check xl-create-pvh xl create /tmp/modern.cfg
check_guest_up modern
check xl-destroy-pvh xl destroy modern
check xl-destroy xl destroy guest
check_all_gone
