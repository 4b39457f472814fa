# SPDX-License-Identifier: Apache-2.0
# The domain that serves xenstore dies as a whole, DEATHS times in each of the ways in ENDS, under a
# guest's traffic, and with BUSY endless loops in dom0; tools/xsboot watch has another one go on in
# its place. Nobody may notice more than a pause of RESCUE_MAX_MS. Then a watcher dies in the middle
# of a rescue, and the next one goes on with it.

export XENSTORED_PATH=$DEVICE
WATCH_LOG=/var/log/watch.log
: "${BUSY:=0}" "${RESCUE_MAX_MS:=3000}"
case $ENDS in *watchdog*) STUB_WORDS="$STUB_WORDS xen-watchdog=3" ;; esac

xsboot() { (cd /server && exec python3 -u -m tools.xsboot "$@"); }
in_server() { (cd /server && PYTHONPATH=/server:/lab exec "$@"); }
start_watch() { # not in a function of a function: its process is to be $watch_pid
    cd /server || return
    python3 -u -m tools.xsboot watch --kernel "/lab/stub/$STUB_KERNEL" \
        --ramdisk "/lab/stub/$STUB_RAMDISK" --param "$STUB_WORDS" >>$WATCH_LOG 2>&1 &
    watch_pid=$!
    cd / || return
}
is_watching() { [ "$(grep -c '^xsboot: watching' $WATCH_LOG)" = "$1" ]; }
rescues() { grep -c 'answers again' $WATCH_LOG; }
has_rescued() { [ "$(rescues)" -gt "$1" ]; }

# end_domain NAME WAY: as crash_domain.py says.
end_domain() {
    before=$(rescues)
    in_server timeout 100 python3 /lab/crash_domain.py "$stub" "$2" >/tmp/outage 2>&1
    outage_rc=$?
    check_that "$1" "$(tail -n 1 /tmp/outage); $(tail -n 1 $WATCH_LOG)" [ $outage_rc = 0 ]
    outage_ms=$(sed -n 's/^outage \([0-9]*\) ms.*/\1/p' /tmp/outage)
    check_that "$1-in-time" "$outage_ms ms" [ "${outage_ms:-99999}" -lt "$RESCUE_MAX_MS" ]
    check_that "$1-rescued" "$(rescues)" has_rescued "$before"
}

start_stub
start_services
region=$(in_server python3 -c 'import sys
from tools.boot.place import place_of_image
print(place_of_image(*sys.argv[1:]))' "/lab/stub/$STUB_KERNEL" "$STUB_WORDS")
check_that read-while-running "$(xsboot read --region "$region" "$stub" /tmp/region)" \
    [ -s /tmp/region ]
check dump-while-running sh -c "cd /server && python3 -m tools.xsdump domain:$stub:$region tree |
    grep '^/tool/xenstored/domid '"
write_config guest 128
check xl-create xl create /tmp/guest.cfg
check_guest_up guest
check_traffic traffic-before guest 100 90
xenstore-write /tool/rescue kept
start_watch
check_that watching "$(uptime_s)" wait_until 60 is_watching 1

busy_pids=
while [ "$(echo $busy_pids | wc -w)" -lt "$BUSY" ]; do
    sh -c 'while :; do :; done' &
    busy_pids="$busy_pids $!"
done

for kind in $ENDS; do
    number=0
    while [ $number -lt "$DEATHS" ]; do
        number=$((number + 1))
        end_domain "end-$kind-$number" "$kind"
        check_traffic "traffic-$kind-$number" guest 50 120
        sleep 1
    done
done

[ -z "$busy_pids" ] || kill $busy_pids

# A watcher that is killed, a domain that dies then (in the last of the ways), half of a rescue by
# somebody who has had nothing of it mapped before, and the next watcher.
kill -9 $watch_pid
wait $watch_pid 2>/dev/null
before=$(rescues)
in_server python3 /lab/crash_domain.py "$stub" "$kind" >/tmp/outage 2>&1 &
outage_pid=$!
check_that half-a-rescue "$(uptime_s)" in_server python3 /lab/half_rescue.py "$stub" \
    "/lab/stub/$STUB_KERNEL" "/lab/stub/$STUB_RAMDISK" "$STUB_WORDS"
start_watch
wait_until 60 has_rescued "$before"
check_that second-half "$(tail -n 1 $WATCH_LOG)" has_rescued "$before"
wait $outage_pid
check_that request-of-before "$(cat /tmp/outage)" grep -q '^outage' /tmp/outage
check_that nothing-left-over "$(ls /dev/shm)" sh -c '! ls /dev/shm/*.region*.json'

check_traffic traffic-afterwards guest 100 90
check_that nothing-lost "$(xenstore-read /tool/rescue)" [ "$(xenstore-read /tool/rescue)" = kept ]
check_that same-domid "$stub" [ "$(xenstore-read /tool/xenstored/domid)" = "$stub" ]
check xl-list xl list
check xenstore-control xenstore-control crash page-fault
write_config second 96
check xl-create-afterwards xl create /tmp/second.cfg
check_guest_up second
check xl-destroy-afterwards xl destroy second
check xl-destroy xl destroy guest
check_all_gone
cat $WATCH_LOG
kill $watch_pid
