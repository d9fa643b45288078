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
# umount(8) does not wait for the bucket, and a read-only mount adopts nothing: what is closed is there.
cmd_ok "it serves" bash -c "echo x >'$MNT/f' && cat '$MNT/f'"
cmd_ok "what was written is in the bucket" "$MLOPSFS_BIN" sync "$MNT"
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

# mount(8) itself, with our helper in /sbin, in a mount namespace of its own: nothing of it is seen outside.
mount8() {
    local ns e shown o=cache_dir=$T/cache,_netdev sbin
    sbin=$(readlink -f /sbin)
    mkfifo "$T/hold"
    unshare -m --propagation private cat "$T/hold" >/dev/null 2>"$T/err" &
    ns=$!
    exec {hold}>"$T/hold"
    at_exit "kill $ns"
    inside() { nsenter -t "$ns" -m -- "$@"; }
    apart() { tap_gone "$ns" || [ "$(readlink "/proc/$ns/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ]; }
    wait_until 30 apart
    tap_gone "$ns" && { skip "mount(8)" "cannot have a mount namespace: $(<"$T/err")"; return; }
    # Its copies of other mounts would keep whoever unmounts those meanwhile.
    awk '/ - fuse\.mlopsfs / { print $5 }' "/proc/$ns/mountinfo" | while IFS= read -r e; do inside umount -l "$(printf %b "$e")"; done
    mkdir "$T/sbin"
    { inside mount --bind "$sbin" "$T/sbin" && inside mount -t tmpfs none "$sbin" && inside cp -rs "$T/sbin/." "$sbin/" &&
        inside ln -sf "$MLOPSFS_BIN" "$sbin/mount.mlopsfs"; } || { fail "our helper in /sbin"; return; }
    for e in defaults lazytime nolazytime default_permissions user=bob user,exec users,noauto group owner,nofail \
        relatime,strictatime,norelatime iversion,mand noiversion,nomand sync,async dirsync,nodiratime suid,dev noatime,atime \
        x-systemd.automount,x-systemd.requires=network-online.target,x-systemd.mount-timeout=30,x-gvfs-hide \
        comment=ours,silent ro,noexec,uid=0,gid=0 exec,sync,noatime; do
        printf '%s %s mlopsfs %s,%s 0 0\n' "$SOURCE" "$MNT" "$o" "$e" >"$T/fstab"
        cmd_ok "a line of fstab with $e" inside mount -T "$T/fstab" "$MNT" || continue
        is "$(inside cat "$MNT/f")" x "it serves"
        shown=,$(inside findmnt -n -o OPTIONS "$MNT"),
        if [[ $shown == *,nosuid,* && $shown == *,nodev,* ]]; then pass "it is nosuid and nodev"; else fail "it is nosuid and nodev: $shown"; fi
        case $e in
        ro,*) like "$shown" ",ro,.*,noexec," "the kernel knows" ;;
        exec,*) like "$shown" ",sync,.*,?noatime,|,noatime,.*,?sync," "the kernel knows"; unlike "$shown" ",noexec," "and of exec" ;;
        dirsync,*) like "$shown" ",dirsync," "the kernel knows" ;;
        users,*) like "$shown" ",noexec," "users means noexec" ;;
        *) unlike "$shown" ",(noexec|sync|noatime)," "nothing more" ;;
        esac
        cmd_ok "mount -a finds it mounted" inside mount -a -T "$T/fstab"
        cmd_ok "umount" inside "$MLOPSFS_BIN" umount "$MNT"
    done
    for e in "remount,rw:unmount it" "nosymfollow:no option" "usr=bob:no option"; do
        printf '%s %s mlopsfs %s,%s 0 0\n' "$SOURCE" "$MNT" "$o" "${e%:*}" >"$T/fstab"
        cmd_fails "a line of fstab with ${e%:*} is refused" inside mount -T "$T/fstab" "$MNT"
        like "$(<"$T/.output")" "mlopsfs: .*${e#*:}" "and why is said"
    done
    case $SOURCE in local:*) e=$SOURCE,data/sub ;; *) e=$SOURCE/sub ;; esac
    printf '%s %s mlopsfs %s 0 0\n' "$e" "$MNT" "$o" >"$T/fstab"
    cmd_ok "what lies below a prefix" inside mount -a -T "$T/fstab"
    is "$(inside findmnt -n -o SOURCE "$MNT")" "$e" "its source is what was mounted"
    cmd_ok "mount -a finds that mounted too" inside mount -a -T "$T/fstab"
    cmd_ok "umount(8)" inside umount "$MNT"
    mnt_is_mounted
    is $? 1 "outside nothing was mounted"
}
if [ "$(id -u)" = 0 ] && have unshare && have nsenter && have findmnt; then
    mount8
else
    skip "mount(8)" "needs root, unshare, nsenter and findmnt"
fi
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
