# SPDX-License-Identifier: Apache-2.0
# The server as the domain that Debian's init-xenstore-domain starts from the image. The beginning
# of a day; then, under a guest's traffic, a crash of each of KINDS, and CRASHES of one kind; a PVH
# guest with a disk that comes while the server crashes; guests that die while it does. Nobody may
# notice; the domain, its ports and its mappings stay the same. Everything goes over dom0's ring:
# there is no socket.

export XENSTORED_PATH=$DEVICE
. /lab/attached.sh

# What the domain has of others. Xen lists for each grant to whom it is, and how often it is mapped.
ports_of_stub() { lsevtchn "$stub" | grep -c 'Interdomain\|Virtual'; }
mappings_of_stub() {
    timeout 20 xl dmesg -c >/dev/null
    timeout 20 xl debug-keys g
    timeout 20 xl dmesg |
        awk -v stub="$stub" '/^\(XEN\) \[0x001\]/ && $3 == stub { print $5 }' | tr '\n' ' '
}

# crashes NAME KIND COUNT: over the ring, each followed at once by a request.
crashes() {
    if timeout $((60 + 2 * $3)) python3 /lab/crashes.py "$2" "$3" >/tmp/crashes.log 2>&1; then
        verdict "$1" ok "$(tail -n 1 /tmp/crashes.log)"
    else
        tail -n 20 /tmp/crashes.log
        verdict "$1" FAILED "$(tail -n 1 /tmp/crashes.log)"
    fi
}

start_stub
start_services
check ring-lists xenstore-ls -f
check ring-writes sh -c 'xenstore-write /tmp-lab value &&
    [ "$(xenstore-read /tmp-lab)" = value ] && xenstore-rm /tmp-lab'
check xl-list xl list
check xl-info xl info
check test-xenstore-ring test-xenstore -i 10
check xenstore-control xenstore-control crash page-fault
write_config guest 128
write_config second 96
check xl-create xl create /tmp/guest.cfg
check_guest_up guest
check_traffic traffic-before guest 100 90
ports=$(ports_of_stub)
mappings=$(mappings_of_stub)

for kind in $KINDS; do
    crashes "crash-$kind" "$kind" 1
done
check_traffic traffic-after-all-kinds guest 50 90
crashes "crashes-$CRASHES" page-fault "$CRASHES"
check_traffic traffic-after-crashes guest 100 90
check_that same-ports "$ports" [ "$(ports_of_stub)" = "$ports" ]
check_that same-mappings "$mappings" [ "$(mappings_of_stub)" = "$mappings" ]

# A PVH guest with a disk: what xl, two kernels and a hotplug script negotiate, they do while the
# server crashes. It dies while it crashes as well. The other guest is paused until it is up: there
# is one processor, and a crash is to mean nothing to a paused guest's ring either.
load_backends
check xl-pause xl pause guest
write_config modern 96 pvh
give_disk modern /dev/ram0
crashing create-modern 8 check xl-create-pvh xl create /tmp/modern.cfg
check_guest_up modern
check_disk pvh-disk modern xvda $DISK_A 0
check xl-unpause xl unpause guest
crashing destroy-modern 20 check xl-destroy-during-crashes xl destroy modern

# It dies by Xen's hand, while the server is in a loop, which its watchdog ends: the next life must
# find out, and tell others.
check xl-create-second xl create /tmp/second.cfg
check_guest_up second
second=$(domid_of second)
python3 /lab/crashes.py loop 1 >/tmp/during 2>&1 &
during_pid=$!
usleep 200000
PYTHONPATH=/server check destroyed-by-xen python3 /lab/destroy.py "$second"
check_that before-the-loop-ends "$(uptime_s)" [ ! -s /tmp/during ]
wait $during_pid
check_that loop-during-death "$(tail -n 1 /tmp/during)" grep -q '^1 of 1' /tmp/during
xenstore-rm "$(xenstore-read "/local/domain/$second/vm")" && xenstore-rm "/local/domain/$second"

check_traffic traffic-after-deaths guest 50 90
check_that same-domain "$stub" [ "$(xenstore-read /tool/xenstored/domid)" = "$stub" ]
check xl-destroy xl destroy guest
check_all_gone
mappings=$(mappings_of_stub)
check_that one-mapping-left "$mappings" [ "$(echo "$mappings" | wc -w)" = 1 ]
