#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The server hangs: whoever waits for it can be stopped by a signal, and all goes on when it wakes up.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up
gen 6 30000000 >"$T/f"
for i in {1..12}; do s3_put "f$i" "$T/f"; done
s3_text deep/x/file x
s3_text deep2/x/file x
mnt_up op_timeout=600s attr_ttl=1h dir_ttl=1h || bail_out "no mount"
ls -l "$MNT" >/dev/null
exec 2>/dev/null # the shell tells of every job that a signal ended
set -m # each job a process group, and SIGINT not ignored in it

# stalls NAME SIGNAL COMMAND…: the command waits for the server; the signal ends it.
stalls() {
    local name=$1 sig=$2 pid
    shift 2
    "$@" >/dev/null 2>&1 &
    pid=$!
    asleep() { # in a FUSE request
        grep -q -E 'fuse|request_wait|folio_wait' "/proc/$pid/stack" "/proc/$pid/wchan" 2>/dev/null
    }
    wait_until 10 asleep
    ok $? "$name: waits for the server"
    kill "-$sig" "$pid"
    wait_until 15 tap_gone "$pid"
    ok $? "$name: SIG$sig ends it"
    if ! tap_gone "$pid"; then
        kill -KILL "$pid"
        wait_until 10 tap_gone "$pid"
        ok $? "$name: at least SIGKILL does"
        kill -CONT "$server_pid" # so that the test can go on
        wait_until 60 tap_gone "$pid"
        kill -STOP "$server_pid"
    fi
    { wait "$pid"; } 2>/dev/null
}
exec {w}>"$MNT/w"
head -c 1000000 /dev/zero >&"$w"
kill -STOP "$server_pid"
at_exit "kill -CONT $server_pid"
stalls "read" INT cat "$MNT/f1"
stalls "read" KILL cat "$MNT/f2"
stalls "stat of a new name" INT stat "$MNT/deep/x/file"
stalls "ls" INT ls "$MNT/deep2"
stalls "close of a new file" INT bash -c "exec cp '$T/f' '$MNT/new1'"
stalls "close of a new file" KILL bash -c "exec cp '$T/f' '$MNT/new2'"
stalls "rename" INT mv "$MNT/f3" "$MNT/g3"
stalls "unlink" INT rm -f "$MNT/f4"
stalls "mkdir" INT mkdir "$MNT/newdir"
stalls "fsync" INT python3 -c 'import os, sys, signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
f = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); os.write(f, b"x" * 100000); os.fsync(f)' "$MNT/fsynced"
# More waiters than there are threads: the daemon still answers.
pids=()
for i in {1..30}; do
    cat "$MNT/f$((i % 8 + 5))" >/dev/null 2>&1 &
    pids+=($!)
done
cmd_ok "with 30 waiting, status answers" timeout 20 "$MLOPSFS_BIN" status "$MNT"
cmd_ok "with 30 waiting, what is cached is told" timeout 20 stat "$MNT/f5"
for p in "${pids[@]}"; do kill -INT "$p"; done
gone() { local p; for p in "${pids[@]}"; do tap_gone "$p" || return 1; done; }
wait_until 20 gone
ok $? "all of them end on SIGINT"
kill -CONT "$server_pid"
{ wait "${pids[@]}"; } 2>/dev/null
set +m
exec {w}>&-
is "$(timeout 100 cat "$MNT/f1" | sha)" "$(sha "$T/f")" "when the server wakes up, reads work"
cmd_ok "and writes" timeout 100 bash -c "echo again >'$MNT/after' && [ \"\$(cat '$MNT/after')\" = again ]"
is "$(s3_get w | wc -c)" 1000000 "what was being written is whole"
cmd_ok "ls" timeout 100 ls "$MNT"
done_testing
