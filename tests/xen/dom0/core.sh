# SPDX-License-Identifier: Apache-2.0
# Core dumps of the domain that serves xenstore: by xl while it serves, by tools/xsboot when it is
# dead and xl cannot be used. tools/xsdump reads the region in either.
# A dump of a PVH domain takes minutes here: Xen's library asks for each page up to 4 GiB.

export XENSTORED_PATH=$DEVICE
DUMP_S=900

in_server() { (cd /server && exec "$@"); }
paths_of() { sed 's/ = ".*//' | grep -vx / | sort; }

# check_dump NAME FILE: it verifies, and has in it what the server had.
check_dump() {
    in_server python3 -m tools.xsdump "$2" verify >/tmp/verify 2>&1
    check_that "$1-verifies" "$(tail -n 1 /tmp/verify)" grep -q '^OK' /tmp/verify
    in_server python3 -m tools.xsdump "$2" tree >/tmp/tree 2>&1
    paths_of </tmp/tree >/tmp/paths-of-dump
    check "$1-has-it-all" diff /tmp/paths /tmp/paths-of-dump
    check "$1-value" grep 'kept in the core' /tmp/tree
}

start_stub
start_services
xenstore-write /tool/core "kept in the core"
xenstore-ls -f | paths_of >/tmp/paths
check_dump memory "domain:$stub" # no dump, but the same questions
began_s=$(uptime_s)
timeout $DUMP_S xl dump-core "$stub" /dev/shm/running >/tmp/xl 2>&1
check_that xl-dump-core "rc $?; $began_s to $(uptime_s) s" [ -s /dev/shm/running ]
check_dump running /dev/shm/running
check serves-still xenstore-read /tool/core
rm /dev/shm/running

PYTHONPATH=/lab check dies python3 -c "import crash_domain; assert crash_domain.shut_down($stub)"
in_server timeout $DUMP_S python3 -m tools.xsboot core "$stub" /dev/shm/dead >/tmp/xsboot 2>&1
check_that xsboot-core "rc $?; $(tail -n 1 /tmp/xsboot)" [ -s /dev/shm/dead ]
check_dump dead /dev/shm/dead
