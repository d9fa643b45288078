#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# umount: busy fails and harms nothing; what was written is in the bucket; the daemon in the background.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
store_up
opts="cache_dir=$T/cache,log_file=$T/daemon.log"

# In the background: returns when it serves.
cmd_ok "mount" "$MLOPSFS_BIN" mount -o "$opts" "$SOURCE" "$MNT"
cmd_ok "it serves at once" ls "$MNT"
pid=$("$MLOPSFS_BIN" status | sed -n "s|.* on $MNT: serving, process ||p")
like "$pid" "^[0-9]+$" "status names its process"
is "$(readlink "/proc/$pid/cwd")" / "it keeps no directory busy"
is "$(ps -o tty= -p "$pid" | tr -d ' ')" "?" "it has no terminal"
unlike "$(tr '\0' ' ' <"/proc/$pid/cmdline")" "${S3_SECRET_KEY:-nothingtohide}" "no secret in its arguments"
cmd_ok "status of it" "$MLOPSFS_BIN" status "$MNT"
gen 8 50000000 >"$MNT/f"
exec {fd}<"$MNT/f"
head -c 1000 <&"$fd" | cmp -s - <(gen 8 1000)
ok $? "a reader is in the middle of a file"
"$MLOPSFS_BIN" umount "$MNT" >"$T/out" 2>"$T/err"
is "$?" 4 "umount while it reads: exit code"
like "$(<"$T/err")" "busy" "says busy"
is "$(wc -l <"$T/err")" 1 "in one line"
for u in "umount" "fusermount3 -u"; do
    $u "$MNT" >"$T/out" 2>"$T/err"
    is "$?:$(grep -c busy "$T/err")" "$([ "$u" = umount ] && echo 32 || echo 1):1" "$u while it reads fails busy too: $(<"$T/err")"
    mnt_is_mounted && cmd_ok "and harms nothing" "$MLOPSFS_BIN" status "$MNT"
done
is "$(cat <&"$fd" | sha)" "$(gen 8 50000000 | tail -c +1001 | sha)" "the reader reads on, all of it"
cmd_ok "others too" bash -c "echo w >'$MNT/w' && cat '$MNT/w'"
exec {fd}<&-
exec {fd}>"$MNT/half"
echo first >&"$fd"
"$MLOPSFS_BIN" umount "$MNT" >"$T/out" 2>"$T/err"
is "$?" 4 "umount while a file is being written: exit code"
echo second >&"$fd"
exec {fd}>&-
is "$(cat "$MNT/half")" $'first\nsecond' "the writer writes on"
(cd "$MNT" && "$MLOPSFS_BIN" umount "$MNT" >/dev/null 2>&1)
is "$?" 4 "umount with a working directory inside"
cmd_fails "umount of a directory in it" "$MLOPSFS_BIN" umount "$MNT/nothing"
cmd_ok "sync" "$MLOPSFS_BIN" sync "$MNT"
cmd_ok "umount" "$MLOPSFS_BIN" umount "$MNT"
mnt_is_mounted
is $? 1 "it is not mounted any more"
tap_gone "$pid"
ok $? "and the daemon has ended"
cmd_ok "the next mount can follow at once" "$MLOPSFS_BIN" mount -o "$opts" "$SOURCE" "$MNT"
is "$(sha "$MNT/f"):$(cat "$MNT/half")" "$(gen_sha 8 50000000):first
second" "all of it is there"
gen 9 80000000 >"$MNT/g"
cmd_ok "fusermount3 -u after a write" bash -c "fusermount3 -u '$MNT' || umount '$MNT'"
again() { "$MLOPSFS_BIN" mount -o "$opts" "$SOURCE" "$MNT"; }
wait_until 30 again
ok $? "mount again"
is "$(sha "$MNT/g")" "$(gen_sha 9 80000000)" "nothing is lost"
cmd_ok "umount by a relative path" bash -c "cd '$T' && '$MLOPSFS_BIN' umount mnt"
# Many mounts and umounts in a row.
for i in 1 2 3 4 5; do
    again && [ "$(cat "$MNT/half")" = $'first\nsecond' ] && "$MLOPSFS_BIN" umount "$MNT" || fail "round $i"
done
pass "five rounds"
# The kernel ends the connection under a file that is written and open: no failure of the daemon, and nothing of it is lost.
if [ "$(id -u)" = 0 ]; then
    mnt_up || bail_out "no mount"
    exec {forced}>"$MNT/forced"
    gen 10 3000000 >&"$forced"
    umount -f "$MNT" 2>/dev/null
    exec {forced}>&-
    umount -l "$MNT" 2>/dev/null
    bad=$mnt_bad
    mnt_reap
    is "$mnt_bad" "$bad" "after umount -f the daemon ends well"
    mnt_up || bail_out "no mount"
    is "$(sha "$MNT/forced")" "$(gen_sha 10 3000000)" "and has brought into the bucket what was written"
    mnt_down
else
    skip "umount -f" "not root"
fi
is "$(find "$T/cache" -type f -printf '%f\n' | grep -v '^catalog\.db' | sort)" "" "in cache_dir only the catalog is left"
cmd_ok "which is there" [ "$(find "$T/cache" -type f -name 'catalog.db*' | wc -l)" -ge 1 ]
is "$(find "$T/run" -type s | wc -l)" 0 "no socket is left"
diag "$(grep -ci error "$T/daemon.log" 2>/dev/null || echo no) errors in the daemon's log"
done_testing
