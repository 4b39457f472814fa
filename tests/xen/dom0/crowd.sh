# SPDX-License-Identifier: Apache-2.0
# From a crash to the first reply, with GUESTS Linux guests, each with a live ring, watches and some
# traffic, and NODES nodes: CRASHES times, and never longer than OUTAGE_MAX_MS. Ten guests need more
# memory than the machine has: MACHINE_MIB=2048.

export XENSTORED_PATH=$DEVICE
: "${GUESTS:=10}" "${NODES:=1000}" "${OUTAGE_MAX_MS:=500}" "${GUEST_MIB:=88}"

check image-is-built ls "/lab/stub/$STUB_KERNEL" "/lab/stub/$STUB_RAMDISK"
check init-xenstore-domain init-xenstore-domain --kernel "/lab/stub/$STUB_KERNEL" \
    --ramdisk "/lab/stub/$STUB_RAMDISK" --memory "$STUB_MEMORY" --param "$STUB_WORDS"
stub=$(timeout 20 xenstore-read /tool/xenstored/domid)
start_services
number=0
while [ $number -lt "$GUESTS" ]; do
    number=$((number + 1))
    write_config "guest$number" "$GUEST_MIB"
    sed -i 's/quiet/quiet slow/' "/tmp/guest$number.cfg"
    check "xl-create-$number" xl create "/tmp/guest$number.cfg"
    check_guest_up "guest$number"
done
have=$(xenstore-ls -f / | wc -l)
pairs=$(seq 1 $((NODES > have ? NODES - have : 1)) |
    awk '{ print "/tool/crowd/" int($1 / 20) "/" $1 " value-of-the-node-" $1 }')
# shellcheck disable=SC2086
echo $pairs | xargs -n 200 xenstore-write
have=$(xenstore-ls -f / | wc -l)
check_that nodes "$have" [ "$have" -ge "$NODES" ]
xenstore-ls -f /tool/crowd | sort >/tmp/before

python3 /lab/crashes.py page-fault "$CRASHES" >/tmp/crashes.log 2>&1
worst=$(sed -n 's/.*worst \([0-9]*\) ms.*/\1/p' /tmp/crashes.log)
check_that first-reply "$(tail -n 1 /tmp/crashes.log)" grep -q "^$CRASHES of $CRASHES" /tmp/crashes.log
check_that "within-$OUTAGE_MAX_MS-ms" "$worst ms" [ "${worst:-99999}" -lt "$OUTAGE_MAX_MS" ]
xl dmesg | grep 'nodes from' | tail -n 3

xenstore-ls -f /tool/crowd | sort >/tmp/after
check nothing-lost cmp /tmp/before /tmp/after
number=0
while [ $number -lt "$GUESTS" ]; do
    number=$((number + 1))
    check_traffic "traffic-$number" "guest$number" 20 120
done
