#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What users see of a file's way into the bucket (user.s3.state), how they wait for it (sync), and how they give it up (discard).
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
store_up
mnt_up attr_ttl=0s dir_ttl=0s || bail_out "no mount"

state() { getfattr --only-values -n user.s3.state "$1" 2>/dev/null; }
state_like() { [[ $(state "$1") =~ $2 ]]; }
discard() { "$MLOPSFS_BIN" discard "$@" 2>&1; }
staged() { [ "$(mnt_status staged)" = 0 ]; }

# Who has files open. (A shell's redirection flushes.)
cat >"$T/hold.py" <<'PY'
import os, sys
files = [os.open(p, os.O_CREAT | os.O_RDWR) for p in sys.argv[1:]]
def do(what):
    for f in files:
        if what == "read":
            return os.pread(f, 100, 0).decode()
        if what == "fsync":
            os.fsync(f)
        else:
            os.pwrite(f, what.encode(), 0)
    return "done"
print(do("ours"), flush=True)
for line in sys.stdin:
    try:
        print(do(line.strip()), flush=True)
    except OSError as e:
        print(e.strerror, flush=True)
PY
mkfifo "$T/in"
lines() { [ "$(grep -c . "$T/said" 2>/dev/null)" -gt "$1" ]; }
hold() { # PATH…: opens them and writes "ours"
    rm -f "$T/said"
    python3 "$T/hold.py" "$@" <"$T/in" >"$T/said" &
    holder=$!
    exec {to}>"$T/in"
    wait_until 60 lines 0
}
tell() { # "read", "fsync", or what to write: the answer
    local n
    n=$(grep -c . "$T/said")
    echo "$1" >&"$to"
    wait_until 60 lines "$n"
    tail -n 1 "$T/said"
}
release() {
    exec {to}>&-
    wait "$holder"
}

# ---- state and sync ----

mkdir "$MNT/dir" "$MNT/other"
hold "$MNT/dir/a" "$MNT/dir/b" "$MNT/other/c"
is "$(state "$MNT/dir/a")" dirty "what is written and not closed is dirty"
cmd_ok "sync of one file" "$MLOPSFS_BIN" sync "$MNT/dir/a"
is "$(state "$MNT/dir/a"):$(state "$MNT/dir/b"):$(state "$MNT/other/c")" clean:dirty:dirty "waits for that alone"
cmd_ok "sync of a directory" "$MLOPSFS_BIN" sync "$MNT/dir"
is "$(state "$MNT/dir/b"):$(state "$MNT/other/c")" clean:dirty "waits for what is below it"
cmd_ok "sync of the mount" "$MLOPSFS_BIN" sync "$MNT"
is "$(state "$MNT/other/c"):$(mnt_status dirty_files)" clean:0 "waits for all"
release
echo more >"$MNT/dir/a"
is "$(state "$MNT/dir/a")" clean "what was closed is clean"
truncate -s 1T "$MNT/holes" 2>"$T/err"
like "$(<"$T/err")" "File too large" "a terabyte that nobody wrote cannot become an object"
like "$(state "$MNT/holes")" "^failed: .*holes_max" "its state says why"
is "$(stat -c %s "$MNT/holes"):$(mnt_status staged)" 1099511627776:0 "it is there, and costs nothing"
cmd_ok "cut to what is needed" truncate -s 5 "$MNT/holes"
is "$(state "$MNT/holes"):$(od -An -tx1 "$MNT/holes")" "clean: 00 00 00 00 00" "it is stored"
hold "$MNT/dir/a"
cat >"$T/terminal.py" <<'PY'
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
PY
python3 "$T/terminal.py" "$MLOPSFS_BIN" sync "$MNT" </dev/null >"$T/out"
is "$?:$(grep -c $'\r.\\[K.*0 files to go' "$T/out")" 0:1 "on a terminal its progress is one line"
is "$(tell again)" "done" "written again"
is "$("$MLOPSFS_BIN" sync "$MNT" | tail -n 1)" "0 files to go" "elsewhere it is lines"
release

# ---- discard ----

printf base >"$MNT/old"
is "$(discard "$MNT/old" | wc -l)" 1 "discard says one line"
like "$(discard "$MNT/old")" "old: nothing to discard" "a clean file has nothing to discard"
is "$(cat "$MNT/old")" base "and is as it was"
hold "$MNT/old"
is "$(cat "$MNT/old")" ours "what was written is seen"
like "$(discard "$MNT/old")" "old: discarded" "it is discarded"
is "$(cat "$MNT/old"):$(stat -c %s "$MNT/old")" base:4 "the file is what the bucket has"
is "$(state "$MNT/old"):$(mnt_status dirty_files)" clean:0 "which is clean"
cmd_ok "the staged bytes are gone" wait_until 30 staged
for what in more fsync; do
    is "$(tell $what)" "Stale file handle" "who has it open is told: $what"
done
release
is "$(cat "$MNT/old")" base "closing it changes nothing"
cmd_ok "it can be written again" bash -c "echo new >'$MNT/old'"
is "$(cat "$MNT/old")" new "as any file"

hold "$MNT/never"
cmd_ok "one that was never in the bucket" discard "$MNT/never"
cmd_fails "is gone" stat "$MNT/never"
is "$(find "$MNT" -name 'never*')" "" "from the directory too"
release
cmd_fails "for good" stat "$MNT/never"
cmd_ok "the name is free" bash -c "echo x >'$MNT/never'"
like "$(discard "$MNT/dir")" "it is a directory" "directories are not discarded"
cmd_fails "nor is that a success" discard "$MNT/dir"
like "$(discard "$MNT")" "is a mount point" "nor is all of a mount"
mkfifo "$T/pipe"
cp "$T/pipe" "$MNT/big" 2>/dev/null &
copy=$!
exec {fd}>"$T/pipe"
gen 3 60000000 >&"$fd"
cmd_ok "a big one that is being uploaded" discard "$MNT/big"
cmd_fails "is gone too" stat "$MNT/big"
exec {fd}>&-
cmd_fails "its writer is told" wait $copy
cmd_ok "and its bytes" wait_until 30 staged

# A seal that an earlier mount left.
mnt_again attr_ttl=0s dir_ttl=0s commit=background op_timeout=1s 'fault=rate=1\,seed=1\,verbs=PUT\,kinds=500'
echo sealed >"$MNT/old"
wait_until 60 state_like "$MNT/old" ^failed
like "$(state "$MNT/old")" "^failed: it could not be stored: the log says more" "its state says what failed"
like "$("$MLOPSFS_BIN" status "$MNT")" "failed old: it could not be stored" "so does status"
mnt_kill
mnt_up attr_ttl=0s dir_ttl=0s commit=background op_timeout=1s 'fault=rate=1\,seed=1\,verbs=PUT\,kinds=500' || bail_out "no mount"
is "$(cat "$MNT/old")" sealed "the next mount has it"
cmd_ok "it is discarded there" discard "$MNT/old"
is "$(cat "$MNT/old")" new "the bucket's version is back"
mnt_kill
mnt_up attr_ttl=0s dir_ttl=0s || bail_out "no mount"
is "$(cat "$MNT/old"):$(mnt_status dirty_files)" new:0 "no later mount brings it back"
foreign || { done_testing; exit; }

# ---- on its way ----

no_uploads() { ! s3_curl "$S3_BUCKET?prefix=big&uploads=" -f | grep -q '<UploadId>'; }
cmd_ok "no upload was left of the big one" wait_until 60 no_uploads
cp "$T/pipe" "$MNT/slow" &
copy=$!
exec {fd}>"$T/pipe"
gen 4 60000000 >&"$fd"
wait_until 60 state_like "$MNT/slow" '^uploading [1-9][0-9]?%$'
ok $? "of a big file that is written, what went up already is told: $(state "$MNT/slow")"
kill -STOP "$server_pid"
exec {fd}>&-
like "$(state "$MNT/slow")" '^uploading [0-9]+%$' "also while the server stands still"
kill -CONT "$server_pid"
wait $copy
is "$?:$(state "$MNT/slow")" 0:clean "to its end"

# ---- fsync=local ----

mnt_again fsync=local op_timeout=600s
hold "$MNT/synced"
kill -STOP "$server_pid"
is "$(tell fsync)" "done" "fsync=local returns while the server stands still"
is "$(tell more)" "done" "what is written after it"
mnt_kill
release
kill -CONT "$server_pid"
mnt_up || bail_out "no mount"
cmd_ok "the next mount" "$MLOPSFS_BIN" sync "$MNT"
is "$(s3_get synced)" ours "brings what was synced into the bucket, and no more"
mnt_again fsync=local
hold "$MNT/later"
is "$(tell fsync)" "done" "synced here"
is "$(mnt_status sealed_files):$(s3_exists later && echo there)" "1:" "not there"
release
is "$(s3_get later)" ours "after close it is there"
done_testing
