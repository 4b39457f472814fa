# SPDX-License-Identifier: Apache-2.0
# A second guest that xl makes and destroys again and again, while others have the server die.
# /tmp/churned says how often it was made, was not, and was not in libxl's time: on the ring, then
# on the socket. On the socket it may fail.

STOP=/tmp/stop
routes="ring socket"
kept=1 # the highest domid that is not to be destroyed

# random_ms LEAST MOST
random_ms() { echo $(($1 + $(od -A n -N 2 -t u2 /dev/urandom) % ($2 - $1))); }

# run_xl LOG ARGUMENTS...: over the ring or the socket, as $route says.
run_xl() {
    xl_log=$1
    shift
    case $route in
    ring) XENSTORED_PATH=$DEVICE timeout 100 xl "$@" >>"$xl_log" 2>&1 ;;
    socket) timeout 100 xl "$@" >>"$xl_log" 2>&1 ;;
    esac
}

# Whoever else is there: a creation that failed may leave a domain without a name.
strangers() {
    XENSTORED_PATH=$DEVICE timeout 50 xl list |
        awk -v kept="$kept" '$2 ~ /^[0-9]+$/ && $2 > kept { print $2 }'
}

# The second guest, made and destroyed until STOP is there, over each of $routes in turn.
churn() {
    ring_made=0 ring_failed=0 ring_late=0 socket_made=0 socket_failed=0 socket_late=0
    until [ -e $STOP ]; do
        for route in $routes; do
            echo "CREATE over the $route" >/tmp/create.log
            if run_xl /tmp/create.log create -e /tmp/second.cfg; then
                result=made
            elif grep -q 'timed out' /tmp/create.log; then
                result=late
            else
                result=failed
            fi
            eval "${route}_$result=\$((${route}_$result + 1))"
            [ $route$result != ringfailed ] || cat /tmp/create.log >>/tmp/failed.log
            run_xl /tmp/churn.log destroy second
            route=ring
            for stranger in $(strangers) $(strangers); do
                run_xl /tmp/churn.log destroy "$stranger"
            done
            echo "$ring_made $ring_failed $ring_late $socket_made $socket_failed $socket_late" \
                >/tmp/churned
        done
    done
}
