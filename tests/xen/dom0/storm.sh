# SPDX-License-Identifier: Apache-2.0
# The stub domain's server crashes CRASHES times, in all of KINDS, at any moment, while three work on
# it: a guest; a program of dom0; and xl, which makes and destroys a second guest again and again.
# Nobody may notice: no answer, value or event is lost, no creation fails, no node is left.

. /lab/churn.sh
export XENSTORED_PATH=$DEVICE
routes=ring
traffic_line() { grep 'GUEST TRAFFIC' "$1" | tail -n 1; }

check image-is-built ls "/lab/stub/$STUB_KERNEL" "/lab/stub/$STUB_RAMDISK"
check init-xenstore-domain init-xenstore-domain --kernel "/lab/stub/$STUB_KERNEL" \
    --ramdisk "/lab/stub/$STUB_RAMDISK" --memory "$STUB_MEMORY" --param "$STUB_WORDS"
stub=$(timeout 20 xenstore-read /tool/xenstored/domid)
start_services
idle_ms=$(PYTHONPATH=/server python3 -c "import time; from tools.boot.libxen import Xen
xen = Xen()
began_ns = xen.domain($stub).cpu_time_ns
time.sleep(10)
print((xen.domain($stub).cpu_time_ns - began_ns) // 1000000)")
check_that idle-cost "$idle_ms ms of processor time in 10 s" [ "${idle_ms:-9999}" -le 200 ]
write_config guest 128
write_config second 96
check xl-create xl create /tmp/guest.cfg
check_guest_up guest
kept=$(domid_of guest)
check_traffic traffic-before guest 100 90
/lab/traffic in-dom0 >/tmp/dom0-traffic 2>&1 &
traffic_pid=$!
churn &
churn_pid=$!

timeout $((60 + 20 * CRASHES)) python3 /lab/storm.py "$CRASHES" "$KINDS" >/tmp/storm 2>&1
check_that "crashes-$CRASHES" "$(tail -n 1 /tmp/storm)" grep -q "^$CRASHES of $CRASHES" /tmp/storm
touch $STOP
wait $churn_pid
# shellcheck disable=SC2046
set -- $(cat /tmp/churned)
check_that xl "made $1, failed $2, out of libxl's time $3" [ "$2" = 0 -a "$1" -gt 0 ]
[ ! -e /tmp/failed.log ] || tail -n 60 /tmp/failed.log

check_traffic traffic-after guest 100 90
check_that traffic-in-dom0 "$(traffic_line /tmp/dom0-traffic)" \
    sh -c 'grep -q "GUEST TRAFFIC" /tmp/dom0-traffic && ! grep "GUEST BAD" /tmp/dom0-traffic'
kill $traffic_pid
check xl-list xl list
check xl-destroy xl destroy guest
check_all_gone
