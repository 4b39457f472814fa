#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# xl's hotplug script for a guest's interface. Debian's own (vif-bridge, vif-route) need a bridge, or
# an interface of dom0's with an address; here dom0's end has an address itself.

if [ "$1" = online ]; then
    ip addr add 10.1.0.1/24 dev "$vif"
    ip link set "$vif" up
    xenstore-write "$XENBUS_PATH/hotplug-status" connected
fi
