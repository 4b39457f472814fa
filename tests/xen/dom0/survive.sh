# SPDX-License-Identifier: Apache-2.0
# The server is killed KILLS times, at any moment, while three work on it: a guest; a program of
# dom0 on the kernel's ring; and xl, which makes and destroys a second guest. The first two must
# not notice. xl on the kernel's ring must not either; on the socket it may fail, and is run again.

. /lab/churn.sh

# Kill the server, start it again; the outage in ms, in $outage_ms.
kill_server() {
    kill -9 "$server_pid"
    died_ms=$(uptime_ms)
    wait "$server_pid" 2>/dev/null
    launch_server
    wait_until 60 is_serving || return
    outage_ms=$(($(uptime_ms) - died_ms))
}

kill_often() {
    killed=0 worst_ms=0 sum_ms=0
    while [ $killed -lt "$KILLS" ]; do
        usleep "$(random_ms 50 800)000"
        kill_server || return
        killed=$((killed + 1))
        sum_ms=$((sum_ms + outage_ms))
        [ $outage_ms -le $worst_ms ] || worst_ms=$outage_ms
    done
}

traffic_line() { grep 'GUEST TRAFFIC' "$1" | tail -n 1; }

start_server
start_services
check_tools
write_config guest 128
write_config second 96
XENSTORED_PATH=$DEVICE check xl-create xl create /tmp/guest.cfg
check_guest_up guest
check_traffic traffic-before guest 100 90
/lab/traffic in-dom0 >/tmp/dom0-traffic 2>&1 &
traffic_pid=$!
churn &
churn_pid=$!

kill_often
check_that kills "$killed of $KILLS; outages: mean $((sum_ms / (killed + !killed))) ms, worst \
$worst_ms ms" [ "$killed" = "$KILLS" ]
touch $STOP
wait $churn_pid
# shellcheck disable=SC2046
set -- $(cat /tmp/churned)
check_that xl-over-ring "made $1, failed $2, out of libxl's time $3" [ "$2" = 0 -a "$1" -gt 0 ]
check_that xl-over-socket "made $4, failed $5, out of libxl's time $6; it may fail" [ -n "$6" ]
[ ! -e /tmp/failed.log ] || tail -n 60 /tmp/failed.log

check_traffic traffic-after guest 100 90
check_that traffic-in-dom0 "$(traffic_line /tmp/dom0-traffic)" \
    sh -c 'grep -q "GUEST TRAFFIC" /tmp/dom0-traffic && ! grep "GUEST BAD" /tmp/dom0-traffic'
console_of guest | grep 'GUEST TRAFFIC' | tail -n 3
kill $traffic_pid
check two-domains sh -c '[ "$(xl list | tail -n +2 | wc -l)" = 2 ]'
check server-log sh -c "! grep -E 'Traceback|DAMAGED|is ignored|are dropped|Error' $SERVER_LOG"
# Something may still change between two lists: they are made anew until they agree, three times.
check same-lists sh -c "for try in 1 2 3; do
    xenstore-ls -f / | grep -v /data/t >/tmp/by-socket &&
    XENSTORED_PATH=$DEVICE xenstore-ls -f / | grep -v /data/t >/tmp/by-ring &&
    diff /tmp/by-socket /tmp/by-ring && exit 0
done; exit 1"
XENSTORED_PATH=$DEVICE check xl-destroy xl destroy guest
check_all_gone
tail -n 15 $SERVER_LOG
