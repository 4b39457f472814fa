# SPDX-License-Identifier: Apache-2.0
# The image as a domain that xl makes, which has no privilege. The daemon leaves dom0's ring alone;
# tools/xsboot handover puts the domain in its place. Then an ordinary day, crashes, and the end of
# the domain as a whole. Before: handovers that fail leave the daemon serving. With another
# STUB_KERNEL it is a PV domain.

HANDOVER_LOG=/var/log/handover.log
WATCH_LOG=/var/log/watch.log

xsboot() { (cd /server && exec python3 -u -m tools.xsboot "$@"); }
hand_over() {
    timeout 100 sh -c 'cd /server && exec python3 -u -m tools.xsboot "$@"' xsboot handover "$1" --pid "$server_pid" --socket $SOCKET --region-file $REGION \
        >>$HANDOVER_LOG 2>&1
}
pidof_server() { ps | grep '[p]ython3 -m app' | awk '{ print $1; exit }'; }
is_handed_over() { grep -q 'serves: ' $HANDOVER_LOG; }
kept() { [ "$(timeout 20 xenstore-read /tool/kept)" = "$1" ]; }
is_ready() { [ -S $SOCKET ] && kept before; }
is_watching() { grep -q '^xsboot: watching' $WATCH_LOG; }

# Unikraft's kernel has the region within itself; any other is told.
kernel=/lab/stub/$STUB_KERNEL
ramdisk=/lab/stub/$STUB_RAMDISK
type=pv region=region=16M place=16M@16M bad_ones="small none away other"
case $STUB_KERNEL in kernel.elf) type=pvh ;; esac
if grep -q TARDIGRADEREGION "$kernel"; then
    region='' place=$kernel bad_ones="none other"
fi

# write_stub FILE KERNEL RAMDISK REGION
write_stub() {
    cat >"$1" <<EOF
name = "xenstore"
type = "$type"
memory = $STUB_MEMORY
vcpus = 1
kernel = "$2"
ramdisk = "$3"
cmdline = "--event find $STUB_WORDS $4"
on_poweroff = "preserve"
on_crash = "preserve"
EOF
}

check image-is-built ls "$kernel" "$ramdisk"
cd /server || return
python3 -m app --host linux:guests --socket $SOCKET --region $REGION --region-size 16M \
    >>$SERVER_LOG 2>&1 &
server_pid=$!
cd / || return
export XENSTORED_PATH=$SOCKET # else libxenstore asks dom0's kernel where there is no socket
check_that daemon "$(uptime_s)" wait_until 60 is_serving
check xen-init-dom0 xen-init-dom0
check xenconsoled xenconsoled --pid-file=/var/run/xenconsoled.pid --log=all
check write xenstore-write /tool/kept before

write_stub /tmp/stub.cfg "$kernel" "$ramdisk" $region
write_stub /tmp/small.cfg "$kernel" "$ramdisk" region=1M
write_stub /tmp/none.cfg /lab/none "$ramdisk" $region
write_stub /tmp/away.cfg "$kernel" "$ramdisk" region=16M@1G
write_stub /tmp/other.cfg "$kernel" /lab/guest.cpio $region # it ends at once
for bad in $bad_ones; do
    hand_over /tmp/$bad.cfg
    handover_rc=$?
    check_that "handover-$bad-fails" "$(tail -n 1 $HANDOVER_LOG)" [ $handover_rc = 1 ]
    check_that "daemon-serves-after-$bad" "$(uptime_s)" wait_until 20 is_ready
    server_pid=$(pidof_server)
done
check_that handover "$(uptime_s)" hand_over /tmp/stub.cfg
cat $HANDOVER_LOG
is_handed_over || return

export XENSTORED_PATH=$DEVICE
stub=$(timeout 20 xenstore-read /tool/xenstored/domid)
check_that nothing-lost "domain $stub" kept before
check xl-list xl list
check ring-lists xenstore-ls -f
write_config guest 128
check xl-create xl create /tmp/guest.cfg
check_guest_up guest
check_traffic traffic guest 100 90
check crash xenstore-control crash page-fault
check_traffic traffic-after-crash guest 100 90
write_config quitter 96
sed -i 's/quiet/quiet power-off/' /tmp/quitter.cfg
check xl-create-quitter xl create /tmp/quitter.cfg
check_guest_up quitter
quitter=$(domid_of quitter)
check xl-destroy-quitter xl destroy quitter

cd /server || return
python3 -u -m tools.xsboot watch --domid "$stub" --kernel "$kernel" --ramdisk "$ramdisk" \
    --param "$STUB_WORDS $region" >>$WATCH_LOG 2>&1 &
watch_pid=$!
cd / || return
check_that watching "$(uptime_s)" wait_until 60 is_watching
PYTHONPATH=/server:/lab python3 /lab/crash_domain.py "$stub" xen >/tmp/outage 2>&1
check_that rescue "$(cat /tmp/outage)" grep -q '^outage' /tmp/outage
cat $WATCH_LOG
check_traffic traffic-after-rescue guest 100 90
check xl-destroy xl destroy guest
check_all_gone
kill $watch_pid

# Back: the domain is gone, a daemon in dom0 goes on with dom0's own ring, whose watches are there,
# and with guests that are new.
xenstore-write /tool/kept again
timeout 200 xenstore-watch -n 2 /tool/watched >/tmp/watched 2>&1 &
usleep 500000
xsboot back --region "$place" "$stub" /tmp/back >/tmp/back.log 2>&1
check_that back "$(cat /tmp/back.log)" [ -s /tmp/back ]
REGION=/tmp/back SERVER=ours
unset XENSTORED_PATH
start_server
export XENSTORED_PATH=$DEVICE
check_that nothing-lost-on-the-way-back "$(uptime_s)" kept again
check xenstore-domid xenstore-write /tool/xenstored/domid 0
check write-watched xenstore-write /tool/watched value
has_seen_both() { [ "$(grep -c '^/tool/watched' /tmp/watched)" = 2 ]; }
check_that watch-goes-on "$(uptime_s)" wait_until 20 has_seen_both
stub=
check xl-list-back xl list
write_config another 128
check xl-create-back xl create /tmp/another.cfg
check_guest_up another
check_traffic traffic-back another 100 90
kill -9 "$server_pid"
launch_server
check_traffic traffic-back-after-kill another 100 90
check xl-destroy-back xl destroy another
grep -v '^$' $SERVER_LOG | tail -n 12
