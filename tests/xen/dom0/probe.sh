# SPDX-License-Identifier: Apache-2.0
# ring/linux.py by itself, beside Debian's xenstored, which makes and destroys the guests. Then
# xenstored is killed (it cannot come back), and what it held must be free.

start_server
start_services
write_config guest 128
write_config second 96
check xl-create xl create /tmp/guest.cfg
check_guest_up guest
export PYTHONPATH=/server
timeout 200 python3 /lab/probe.py look || verdict look-ends FAILED "rc=$?"
domid=$(domid_of guest)
port=$(xenstore-read "/local/domain/$domid/store/port")
kill -9 "$(cat /var/run/xenstored.pid)"
timeout 100 python3 /lab/probe.py take "$domid" "$port" || verdict take-ends FAILED "rc=$?"
