#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# make install, and mount(8)'s helper.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
store_up
ln -s "$MLOPSFS_BIN" "$T/mount.mlopsfs"
h=$T/mount.mlopsfs
cmd_ok "as mount(8) calls it" "$h" "$SOURCE" "$MNT" -o "rw,nodev,nosuid,_netdev,cache_dir=$T/cache"
cmd_ok "it serves" bash -c "echo x >'$MNT/f' && cat '$MNT/f'"
like "$(grep " $MNT " /proc/self/mounts)" "nosuid,nodev|nodev,nosuid" "its generic options hold"
like "$(grep " $MNT " /proc/self/mounts)" "fuse.mlopsfs" "its type is fuse.mlopsfs"
is "$(findmnt -n -o SOURCE "$MNT")" "$SOURCE" "its source is what was mounted"
cmd_ok "umount(8)" umount "$MNT"
again() { "$h" "$SOURCE" "$MNT" -o "ro,cache_dir=$T/cache"; }
wait_until 30 again
ok $? "read-only"
errno_is EROFS "it takes no writes" touch "$MNT/g"
is "$(cat "$MNT/f")" x "it can be read"
cmd_ok "umount" "$MLOPSFS_BIN" umount "$MNT"
cmd_ok "options before the operands, and flags" "$h" -n -s -o "cache_dir=$T/cache" "$SOURCE" "$MNT"
cmd_ok "umount" "$MLOPSFS_BIN" umount "$MNT"
cmd_ok "-f only checks" "$h" -f "$SOURCE" "$MNT" -o "cache_dir=$T/cache"
mnt_is_mounted
is $? 1 "and mounts nothing"
cmd_fails "a wrong option" "$h" "$SOURCE" "$MNT" -o nonsense=1
cmd_ok "noauto,user,x-systemd.automount,nofail,defaults" "$h" "$SOURCE" "$MNT" -o "defaults,noauto,user,x-systemd.automount,nofail,cache_dir=$T/cache"
cmd_ok "umount" "$MLOPSFS_BIN" umount "$MNT"
if [ -e "$TOP/LICENSE" ] && [ -e "$TOP/docs/mlopsfs.1" ] && [ -e "$TOP/mlopsfs.conf" ] && [ -z "${MLOPSFS_NO_INSTALL-}" ] && ! sanitized &&
    [ "$MLOPSFS_BIN" = "$TOP/build/mlopsfs" ]; then
    cmd_ok "make install" make -s -C "$TOP" install DESTDIR="$T/dest" PREFIX=/usr
    for f in usr/bin/mlopsfs usr/libexec/mlopsfs/mlopsfs-probe sbin/mount.mlopsfs usr/share/man/man1/mlopsfs.1 usr/share/doc/mlopsfs/mlopsfs.conf; do
        if [ -e "$T/dest/$f" ] || [ -L "$T/dest/$f" ]; then pass "installs $f"; else fail "installs $f"; fi
    done
    is "$(readlink "$T/dest/sbin/mount.mlopsfs")" /usr/bin/mlopsfs "mount.mlopsfs is a link to the program"
    cmd_ok "the installed program runs" "$T/dest/usr/bin/mlopsfs" --version
    cmd_ok "make uninstall" make -s -C "$TOP" uninstall DESTDIR="$T/dest" PREFIX=/usr
    is "$(find "$T/dest" -type f -o -type l)" "" "takes all of it away"
else
    skip "make install" "another build, or not all of it is there"
fi
done_testing
