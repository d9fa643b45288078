#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A daemon is killed: its mount point is dead, and mounting again replaces it.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
store_up
mnt_up || bail_out "no mount"
echo kept >"$MNT/kept"
gen 4 20000000 >"$MNT/big"
mkdir "$MNT/dir"
mnt_kill
errno_is ENOTCONN "the mount point of a killed daemon is dead" ls "$MNT"
like "$("$MLOPSFS_BIN" status 2>&1)" "no daemon" "status says so"
cmd_fails "status of it fails" timeout 20 "$MLOPSFS_BIN" status "$MNT"
mnt_up
ok $? "mounting again replaces it"
is "$(grep -c " $MNT fuse" /proc/self/mounts)" 1 "there is one mount, not two"
is "$(cat "$MNT/kept"):$(sha "$MNT/big"):$(stat -c %F "$MNT/dir")" "kept:$(gen_sha 4 20000000):directory" "what had been closed is there"
# A dead mount of another program's: what it is, and what to do; it stays.
if [ "$(id -u)" = 0 ]; then
    mkdir "$T/other dead"
    cmd_ok "a dead mount of another program" python3 -c 'import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("/dev/fuse", os.O_RDWR)
if libc.mount(b"bucket", sys.argv[1].encode(), b"fuse.s3fs", 0, b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd):
    sys.exit(os.strerror(ctypes.get_errno()))' "$T/other dead"
    for where in "" /below; do
        "$MLOPSFS_BIN" mount -o "cache_dir=$T/cache" "$SOURCE" "$T/other dead$where" >"$T/out" 2>"$T/err"
        is "$?:$(wc -l <"$T/err"):$(wc -c <"$T/out")" 4:1:0 "mounting there${where:+, or below,} is refused in one line: $(<"$T/err")"
        like "$(<"$T/err")" "dead mount.*fusermount3 -u" "it says what that is, and what helps"
        unlike "$(<"$T/err")" "create the directory|Transport endpoint" "and nothing else"
        [ -n "$where" ] || like "$(<"$T/err")" "fuse\.s3fs.*fusermount3 -u '$T/other dead'" "by its name, as the shell takes it"
    done
    cmd_ok "what it says helps" fusermount3 -u "$T/other dead"
else
    skip "a dead mount of another program" "needs root"
fi
# In the middle of a write.
# (python, as a shell's redirection closes the file once before it is written, which makes an empty object)
python3 -c 'import sys
with open(sys.argv[1], "wb", buffering=0) as f:
    while True: f.write(b"x" * 100000)' "$MNT/unfinished" 2>/dev/null &
writer=$!
grown() { [ "$(stat -c %s "$MNT/unfinished" 2>/dev/null || echo 0)" -gt 30000000 ]; }
wait_until 30 grown
mnt_kill
wait_until 30 tap_gone $writer
ok $? "a writer does not hang when its daemon is killed"
wait $writer 2>/dev/null
cmd_ok "umount of a dead mount" "$MLOPSFS_BIN" umount "$MNT"
is "$(grep -c " $MNT fuse" /proc/self/mounts)" 0 "it is gone"
mnt_up || bail_out "no mount after a kill"
is "$(cat "$MNT/kept"):$(sha "$MNT/big")" "kept:$(gen_sha 4 20000000)" "what had been closed is there"
cmd_fails "the file that was never closed is not there, not even in part" stat "$MNT/unfinished"
cmd_ok "it can be written now" bash -c "echo x >'$MNT/unfinished'"
mnt_again
is "$(find "$T/cache" -type f -size +4M | wc -l)" 0 "what the killed daemon had staged does not stay on the disk"
# A second mount at the same place is refused, and harms nothing.
"$MLOPSFS_BIN" mount -o "cache_dir=$T/cache" "$SOURCE" "$MNT" >"$T/out" 2>"$T/err"
is "$?:$(wc -l <"$T/err")" "4:1" "mounting over a mount that is alive is refused: $(<"$T/err")"
is "$(cat "$MNT/kept")" kept "it goes on"
# A signal ends it as umount does.
for s in TERM HUP; do
    echo "$s" >"$MNT/$s"
    kill -$s "$mnt_daemon"
    wait_until 30 tap_gone "$mnt_daemon"
    ok $? "SIG$s ends the daemon"
    mnt_reap
    is "$(grep -c " $MNT fuse" /proc/self/mounts)" 0 "and the mount"
    mnt_up || bail_out "no mount after SIG$s"
    is "$(cat "$MNT/$s")" "$s" "what was written is there"
done
done_testing
