# SPDX-License-Identifier: Apache-2.0
# A PV guest and a PVH one with disk, interface and console, all negotiated through the stub domain;
# then a second disk is attached and detached ATTACHES times while the server crashes again and
# again. Between them all that xl does with a domain.

export XENSTORED_PATH=$DEVICE
GUEST_MIB=96
. /lab/attached.sh

create_with_disk() {
    check "$1" xl create /tmp/guest.cfg
    check_guest_up guest
    check_disk "$1-disk" guest xvda $DISK_A 0
}

# What xl does with a domain that runs.
domain_commands() {
    check "$1-rename" xl rename guest other
    check "$1-renamed" sh -c 'xl list other && ! xl list guest'
    check "$1-rename-back" xl rename other guest
    check "$1-pause" xl pause guest
    check "$1-is-paused" sh -c 'xl list guest | grep -- " --p---"'
    check "$1-unpause" xl unpause guest
    check_traffic "$1-unpaused" guest 50 120
    check "$1-console" python3 /lab/console.py guest "typed for $1"
}

# The core dump of a guest, and how much memory is in it.
SIZE_OF_CORE='import sys
from persist.core import CoreMemory
from persist.region import open_region_for_reading
core = CoreMemory(open_region_for_reading(sys.argv[1]))
print(sum(end - first for first, end in core.stretches()) >> 20)'
dump_core() {
    check "$1-dump-core" xl dump-core guest /dev/shm/core
    core_mib=$(PYTHONPATH=/server timeout 60 python3 -c "$SIZE_OF_CORE" /dev/shm/core)
    check_that "$1-core" "$core_mib MiB" [ "$core_mib" = "$GUEST_MIB" ]
    rm /dev/shm/core
    check_traffic "$1-dumped" guest 50 120
}

start_stub
start_services
load_backends
for type in pv pvh; do
    write_config guest $GUEST_MIB $type
    give_disk guest /dev/ram0
    give_interface guest
    crashing $type-create 12 create_with_disk $type-create
    check_vif $type-vif guest
    domain_commands $type
    [ $type = pvh ] || dump_core $type # tests/xen/README.md: why not
    number=0
    while [ $number -lt "$ATTACHES" ]; do
        number=$((number + 1))
        crashing $type-attach-$number 12 attach_disk $type-attach-$number guest /dev/ram1
        crashing $type-detach-$number 12 detach_disk $type-detach-$number guest
    done
    check_traffic $type-traffic guest 50 120
    crashing $type-destroy 12 check $type-destroy xl destroy guest
    rm "$CONSOLES/guest-guest.log"
    check_that $type-no-backends "$(xenstore-ls /local/domain/0/backend | head -n 3)" \
        no_backends
done
check_all_gone
