#!/bin/sh
# A systemd as first process of namespaces of its own, which starts the units of a folder: `transient_systemd.sh FOLDER`.
# Of the machine it changes nothing: its mounts, processes, host name and control groups end with it.
set -eu
umask 022
mount --make-rprivate /
mount --make-rshared /
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
for place in /run /srv /opt; do mount -t tmpfs -o mode=755 tmpfs "$place"; done
mkdir -p /run/systemd/system /run/lock
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
while read -r from to; do
    if [ -d "$from" ]; then mkdir -p "$to"; else mkdir -p "${to%/*}"; : > "$to"; fi
    mount --bind "$from" "$to"
done < "$1/binds"
export container=coterie SYSTEMD_UNIT_PATH="$1/units" SYSTEMD_LOG_TARGET=console
unset NOTIFY_SOCKET
exec /lib/systemd/systemd --system --unit=start.target --show-status=no --crash-reboot=no
