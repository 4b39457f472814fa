# SPDX-License-Identifier: Apache-2.0
# What scenarios are made of. They run as process 1's shell, so nothing here exits.
# XENSTORED_PATH=$DEVICE in front of a command sends it to dom0's kernel and its ring; without,
# libxenstore takes the server's socket.
# V1. A scenario's results are its lines "VERDICT name ok|FAILED text", and nothing else.
# V2. Nothing waits for ever: every wait has a bound, and says FAILED behind it.

SOCKET=/var/run/xenstored/socket
REGION=/dev/shm/xenstore.region
DEVICE=/dev/xen/xenbus
CONSOLES=/var/log/xen/console
SERVER_LOG=/var/log/server.log

uptime_s() { cut -d ' ' -f 1 /proc/uptime; }
uptime_ms() { cut -d ' ' -f 1 /proc/uptime | tr -d . | sed 's/$/0/'; }

verdict() {
    echo
    echo "VERDICT $*"
}

# check NAME COMMAND...: its verdict is the command's result; its output is kept.
check() {
    check_name=$1
    shift
    if timeout 120 "$@" >"/tmp/$check_name" 2>&1; then
        verdict "$check_name" ok "$(uptime_s)"
    else
        check_rc=$?
        sed 's/^/  | /' "/tmp/$check_name" | tail -n 20
        verdict "$check_name" FAILED "rc=$check_rc: $*"
    fi
}

# check_that NAME TEXT COMMAND...: as check, of a condition in this shell.
check_that() {
    that_name=$1 that_text=$2
    shift 2
    if "$@"; then
        verdict "$that_name" ok "$that_text"
    else
        verdict "$that_name" FAILED "$that_text"
    fi
}

# wait_until SECONDS COMMAND...: whether the command comes true in time.
wait_until() {
    wait_end_s=$(($(uptime_ms) / 1000 + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(($(uptime_ms) / 1000))" -lt "$wait_end_s" ] || return 1
        usleep 100000
    done
}

# -- the server

is_serving() { XENSTORED_PATH=$SOCKET timeout 5 xenstore-exists / && [ -S $SOCKET ]; }

launch_server() {
    case $SERVER in
    c) xenstored --pid-file /var/run/xenstored.pid ;;
    ours)
        cd /server || return
        # shellcheck disable=SC2086
        python3 -m app --host linux --socket $SOCKET --region $REGION $SERVER_OPTIONS \
            >>$SERVER_LOG 2>&1 &
        server_pid=$!
        cd / || return
        ;;
    esac
}

start_server() {
    launch_server
    if wait_until 60 is_serving; then
        verdict server-starts ok "$(uptime_s)"
    else
        verdict server-starts FAILED "no answer on $SOCKET"
        tail -n 30 $SERVER_LOG
    fi
}

# The same as the domain that Debian's init-xenstore-domain makes of the image: $stub.
start_stub() {
    check image-is-built ls "/lab/stub/$STUB_KERNEL" "/lab/stub/$STUB_RAMDISK"
    check init-xenstore-domain init-xenstore-domain --kernel "/lab/stub/$STUB_KERNEL" \
        --ramdisk "/lab/stub/$STUB_RAMDISK" --memory "$STUB_MEMORY" --param "$STUB_WORDS"
    stub=$(timeout 20 xenstore-read /tool/xenstored/domid)
}

# Everything that a toolstack needs beside the store. xenconsoled is to outlive the store's
# socket: over the kernel's ring it does not notice when the server dies.
start_services() {
    check xen-init-dom0 xen-init-dom0
    XENSTORED_PATH=$DEVICE check xenconsoled \
        xenconsoled --pid-file=/var/run/xenconsoled.pid --log=all
}

# Debian's own programs on both ways to the server, and the toolstack's questions.
check_tools() {
    check socket-lists xenstore-ls -f
    XENSTORED_PATH=$DEVICE check ring-lists xenstore-ls -f
    XENSTORED_PATH=$DEVICE check ring-writes sh -c 'xenstore-write /tmp-lab value &&
        [ "$(xenstore-read /tmp-lab)" = value ] && xenstore-rm /tmp-lab'
    check xl-list xl list
    check xl-info xl info
    check test-xenstore-socket test-xenstore -i 10
    XENSTORED_PATH=$DEVICE check test-xenstore-ring test-xenstore -i 10
}

# -- guests

# write_config NAME MEMORY [TYPE]: a configuration for xl, /tmp/NAME.cfg; pv or pvh
write_config() {
    cat >"/tmp/$1.cfg" <<EOF
name = "$1"
type = "${3:-pv}"
memory = $2
vcpus = 1
kernel = "/lab/vmlinux"
ramdisk = "/lab/guest.cpio"
extra = "console=hvc0 quiet"
on_poweroff = "destroy"
on_crash = "preserve"
EOF
}

console_of() { cat "$CONSOLES/guest-$1.log" 2>/dev/null; }
is_guest_up() { console_of "$1" | grep -q "GUEST UP"; }
complaints_of() { console_of "$1" | grep "GUEST BAD"; }
requests_of() {
    requests=$(console_of "$1" | sed -n 's/.*GUEST TRAFFIC requests=\([0-9]*\).*/\1/p' | tail -n 1)
    echo "${requests:-0}"
}
has_asked() { [ "$(requests_of "$1")" -ge "$2" ]; }

check_guest_up() {
    if wait_until 240 is_guest_up "$1"; then
        verdict "$1-up" ok "$(uptime_s)"
    else
        console_of "$1" | tail -n 30
        verdict "$1-up" FAILED "no line of its init on its console"
    fi
}

# check_traffic NAME GUEST MORE SECONDS: so many more requests, in time, and never a complaint.
check_traffic() {
    traffic_goal=$(($(requests_of "$2") + $3))
    if ! wait_until "$4" has_asked "$2" "$traffic_goal"; then
        verdict "$1" FAILED "$(requests_of "$2") requests of $traffic_goal in $4 s"
    elif complaints_of "$2" | head -n 10 | grep .; then
        verdict "$1" FAILED "$(complaints_of "$2" | head -n 1)"
    else
        verdict "$1" ok "$(console_of "$2" | grep 'GUEST TRAFFIC' | tail -n 1)"
    fi
}

domid_of() { timeout 20 xl domid "$1" 2>/dev/null; }
count_domains() { timeout 20 xl list 2>/dev/null | tail -n +2 | wc -l; }
is_alone() { [ "$(count_domains)" = $((stub ? 2 : 1)) ]; }

# No domain but dom0 and, if there is one, $stub, the server's; and nothing of any in the store.
check_all_gone() {
    if wait_until 30 is_alone; then
        verdict no-zombie ok "$(uptime_s)"
    else
        xl list
        verdict no-zombie FAILED "xl list shows other domains"
    fi
    left=$(timeout 30 xenstore-ls -f /local/domain | grep '^/local/domain/[1-9]' |
        grep -vc "^/local/domain/${stub:-none}[/ ]")
    left_vm=$(timeout 30 xenstore-list /vm 2>/dev/null | wc -l)
    check_that no-nodes-left "$left under /local/domain, $left_vm under /vm" [ "$left" = 0 ]
}
