# SPDX-License-Identifier: Apache-2.0
# Guests' devices, for scenarios: disks by Debian's kernel and Debian's own hotplug scripts, a
# network interface, the console. What negotiates them is xl, two kernels and shell scripts, all
# through xenstore; the guest then says what it has of them (devices.c).
# D1. A device is there when both ends say Connected, and the guest has used it since.

DISK_A=51712 DISK_B=51728 # xvda, xvdb: how xl numbers them
CONNECTED=4

load_backends() {
    check backends sh -c 'insmod /lab/modules/brd.ko rd_nr=4 rd_size=4096 &&
        insmod /lab/modules/xen-blkback.ko && insmod /lab/modules/xen-netback.ko'
}

# give_disk NAME RAMDISK, give_interface NAME: in /tmp/NAME.cfg
give_disk() {
    echo "disk = [ \"format=raw,vdev=xvda,access=rw,target=$2\" ]" >>"/tmp/$1.cfg"
    sed -i 's/quiet"/quiet devices"/' "/tmp/$1.cfg"
}
give_interface() {
    echo 'vif = [ "mac=00:16:3e:00:00:01,script=/lab/vif.sh" ]' >>"/tmp/$1.cfg"
}

state_of() { timeout 20 xenstore-read "$1/state" 2>/dev/null; }
backend_of() { echo "/local/domain/0/backend/$1/$2/$3"; }
frontend_of() { echo "/local/domain/$2/device/$1/$3"; }

# is_connected KIND DOMID NUMBER: both ends.
is_connected() {
    [ "$(state_of "$(backend_of "$@")")" = $CONNECTED ] &&
        [ "$(state_of "$(frontend_of "$@")")" = $CONNECTED ]
}
is_detached() {
    ! timeout 20 xenstore-exists "$(backend_of "$@")" &&
        ! timeout 20 xenstore-exists "$(frontend_of "$@")"
}

disk_lines() { console_of "$1" | grep -c "GUEST DISK /dev/$2 rounds"; }
has_more_disk_lines() { [ "$(disk_lines "$1" "$2")" -gt "$3" ]; }
says() { console_of "$1" | tr -d '\r' | grep -q "$2"; }

# check_disk NAME GUEST DISK NUMBER LINES: it is connected, and has been used since it had LINES.
check_disk() {
    disk_domid=$(domid_of "$2")
    check_that "$1-connected" "$(uptime_s)" wait_until 120 is_connected vbd "$disk_domid" "$4"
    check_that "$1-used" "$(uptime_s)" wait_until 120 has_more_disk_lines "$2" "$3" "$5"
}

# check_vif NAME GUEST: connected, and answering.
check_vif() {
    check_that "$1-connected" "$(uptime_s)" wait_until 120 is_connected vif "$(domid_of "$2")" 0
    check_that "$1-up" "$(uptime_s)" wait_until 120 says "$2" 'GUEST INTERFACE eth0 up'
    check "$1-answers" ping -c 3 -W 20 10.1.0.2
}

# attach_disk, detach_disk NAME GUEST RAMDISK: its second disk.
attach_disk() {
    attach_lines=$(disk_lines "$2" xvdb)
    check "$1" xl block-attach "$2" "format=raw,vdev=xvdb,access=rw,target=$3"
    check_disk "$1" "$2" xvdb $DISK_B "$attach_lines"
}
detach_disk() {
    detach_domid=$(domid_of "$2")
    check "$1" xl block-detach "$2" xvdb
    check_that "$1-gone" "$(uptime_s)" wait_until 120 is_detached vbd "$detach_domid" $DISK_B
}

# No device of any guest is left.
no_backends() {
    for kind in vbd vif; do
        [ -z "$(timeout 20 xenstore-list /local/domain/0/backend/$kind 2>/dev/null)" ] || return 1
    done
}

# crashing NAME COUNT COMMAND...: the command; from its beginning on the stub domain crashes so often.
crashing() {
    crashing_name=$1 crashing_count=$2
    shift 2
    python3 /lab/crashes.py page-fault "$crashing_count" >/tmp/during 2>&1 &
    during_pid=$!
    "$@"
    wait $during_pid
    check_that "$crashing_name-crashed" "$(tail -n 1 /tmp/during)" \
        grep -q "^$crashing_count of" /tmp/during
}
