#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 while files are open: what nobody had closed does not become an object, and is offered by `mlopsfs recover`; what was
# closed is brought into the bucket by `mlopsfs sync SOURCE` without a mount. And the warning about a cache_dir that does not last.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_foreign
store_up
mnt_up commit=background op_timeout=20s || bail_out "no mount"
. "$TOP/tests/crash/writers.sh"
status_is() { [ "$(mnt_status "$1")" = "$2" ]; }
status_grew() { [ "$(mnt_status "$1")" -ge "$2" ]; }
recover() { "$MLOPSFS_BIN" recover -o "cache_dir=$T/cache" "$@"; }
offline() { "$MLOPSFS_BIN" sync -o "cache_dir=$T/cache,op_timeout=20s" "$@"; }
entries() { find "$T/cache/recovered" -type f | wc -l; }
id_of() { recover | grep -F "s3://testbucket/$1 " | cut -d ' ' -f 1; }
journals() { find "$T/cache" -name journal.db | wc -l; }
staged() { find "$T/cache" -name '*.staged' -size +0 | wc -l; }

is "$(recover)" "" "nothing is to be recovered"
gen 1 50000000 >"$T/big"
gen 2 40000 >"$T/small"
gen 5 30000000 >"$T/edited"
cp "$T/edited" "$MNT/edited"
cmd_ok "a file to be changed" "$MLOPSFS_BIN" sync "$MNT"
before=$(s3_etag edited)
mkdir "$MNT/dir"

# Open when the mount is killed: a new file, an edit, one that was closed before and opened again.
cp "$T/small" "$MNT/reopened"
cmd_ok "and one to be opened again" "$MLOPSFS_BIN" sync "$MNT"
writer "dir/new file" "$T/big" never.new
writer edited - never.edited
writer closed "$T/small" go.closed
cmd_ok "drafts are made of what is open" wait_until 60 status_is drafted_files 3
kill -STOP "$server_pid"
: >"$T/go.closed"
wait_until 60 grep -q closed "$T/go.closed.out"
is "$(tail -n 1 "$T/go.closed.out")" closed "close returns"
is "$(mnt_status sealed_files):$(mnt_status drafted_files)" 1:2 "what was closed is sealed, and has no draft any more"
mnt_kill
end_writers
kill -CONT "$server_pid"

# ---- sync without a mount ----
umount "$MNT" 2>/dev/null || fusermount3 -u -z "$MNT" 2>/dev/null
offline s3://testbucket >"$T/out" 2>"$T/err"
is "$?" 0 "sync of the bucket, which is not mounted"
like "$(<"$T/out")" "0 files to go" "says how far it is"
is "$(s3_sha closed)" "$(sha "$T/small")" "what was closed is in the bucket"
is "$(grep -c 'mlopsfs recover' "$T/err")" 2 "of the others it says where they are"
cmd_fails "what was not closed is not there" s3_exists "dir/new file"
is "$(s3_etag edited)" "$before" "nor is the edit"
is "$(journals) $(staged)" "0 0" "no journal is left"
offline s3://testbucket >"$T/out" 2>&1
is "$?:$(<"$T/out")" "0:" "a second one has nothing to do"

# ---- recover ----
recover >"$T/list" 2>"$T/err"
is "$?:$(wc -l <"$T/list"):$(wc -c <"$T/err")" "0:2:0" "recover lists both"
like "$(<"$T/list")" "[0-9-]+ [0-9:]+  29166666 of 29166666 bytes  s3://testbucket/dir/new file on http://127.0.0.1:[0-9]+ " "with time, size and name"
like "$(<"$T/list")" "  4 of 30000000 bytes  s3://testbucket/edited " "and of the edit what was written"
cmd_ok "save" recover save "$(id_of "dir/new file")" "$T/saved"
is "$(sha "$T/saved")" "$(head -c 29166666 "$T/big" | sha)" "has what was written"
cmd_fails "an existing file is not overwritten" recover save "$(id_of "dir/new file")" "$T/saved"
cmd_fails "save of what there is not" recover save 0-0-0 "$T/other"
like "$(<"$T/.output")" 'nothing called "0-0-0"' "says so"
recover save "$(id_of edited)" "$T/holes" >"$T/out" 2>"$T/err"
is "$?" 0 "the edit alone"
like "$(<"$T/err")" "29999996 bytes .* zeros .*: 0-9999999, 10000004-29999999" "says which bytes are not in it"
printf chan | dd of="$T/edited" bs=1 seek=10000000 conv=notrunc status=none
mnt_up || bail_out "no mount"
cmd_fails "with a base that is another version" recover save --base "$MNT/closed" "$(id_of edited)" "$T/whole"
like "$(<"$T/.output")" "not the version" "says so"
cmd_ok "with the version that was changed, into the mount" recover save --base "$MNT/edited" "$(id_of edited)" "$MNT/whole"
is "$(s3_sha whole)" "$(sha "$T/edited")" "it is whole"
cmd_ok "discard" recover discard "$(id_of edited)"
is "$(recover | wc -l):$(entries)" 1:2 "one is left"
id=$(id_of "dir/new file")
printf damaged | dd of="$T/cache/recovered/$id.entry" bs=1 seek=5 conv=notrunc status=none
cmd_fails "a damaged entry" recover
like "$(<"$T/.output")" "$id: its description .* is damaged" "says so"
cmd_ok "can be discarded" recover discard "$id"
is "$(recover):$(entries)" ":0" "nothing is left"
cmd_fails "a word that recover does not know" recover undelete x

# ---- a mount adopts, too; sync of a bucket that cannot be had ----
mnt_again commit=background op_timeout=20s
writer reopened "$T/big" go.reopened
cmd_ok "a draft" wait_until 60 status_is drafted_files 1
writer late "$T/small" go.late
kill -STOP "$server_pid"
: >"$T/go.late"
wait_until 60 grep -q closed "$T/go.late.out"
mnt_kill
end_writers
umount "$MNT" 2>/dev/null || fusermount3 -u -z "$MNT" 2>/dev/null
kill -CONT "$server_pid"
"$MLOPSFS_BIN" sync -o "cache_dir=$T/cache,op_timeout=20s,capabilities=none,fault=rate=1,op_timeout=2s" s3://testbucket >"$T/out" 2>"$T/err"
isnt=$?
like "$isnt" "^[1-5]$" "sync without a server fails"
mnt_up || bail_out "no mount"
cmd_ok "the mount brings what was closed into the bucket" wait_until 60 status_is dirty_files 0
is "$(s3_sha late)" "$(sha "$T/small")" "whole"
is "$(s3_sha reopened)" "$(sha "$T/small")" "what was opened again is as it was closed"
like "$(recover)" " s3://testbucket/reopened " "and what was written to it then can be recovered"
cmd_ok "it is" recover save "$(id_of reopened)" "$T/reopened"
is "$(head -c 29166666 "$T/reopened" | sha)" "$(head -c 29166666 "$T/big" | sha)" "with what was written"
# A source that is mounted: the daemon has its part in it.
writer held "$T/small" never.held
cmd_ok "sync of a bucket in another cache_dir" "$MLOPSFS_BIN" sync -o "cache_dir=$T/cache3" s3://testbucket
is "$(mnt_status dirty_files)" 1 "leaves the mount alone"
cmd_ok "sync of a bucket that is mounted" offline s3://testbucket
is "$(mnt_status dirty_files)" 0 "brings what the mount has, too"
end_writers
mnt_down

# ---- a conflict, without a mount ----
mnt_up commit=background op_timeout=20s || bail_out "no mount"
writer closed "$T/big" go.conflict
kill -STOP "$server_pid"
: >"$T/go.conflict"
wait_until 60 grep -q closed "$T/go.conflict.out"
mnt_kill
umount "$MNT" 2>/dev/null || fusermount3 -u -z "$MNT" 2>/dev/null
kill -CONT "$server_pid"
s3_text closed theirs
offline -o on_conflict=fail s3://testbucket >"$T/out" 2>"$T/err"
is "$?" 5 "a file that somebody else has changed: sync fails"
like "$(<"$T/err")" "s3://testbucket/closed: somebody else has changed" "and says which and why"
is "$(s3_get closed)" theirs "theirs stays"

# ---- sync while a mount is ending ----
mnt_up commit=background op_timeout=60s || bail_out "no mount"
writer ending "$T/big" go.ending
kill -STOP "$server_pid"
: >"$T/go.ending"
wait_until 60 grep -q closed "$T/go.ending.out"
umount "$MNT" 2>/dev/null || fusermount3 -u "$MNT"
kill -STOP "$(mnt_pid)"
kill -CONT "$server_pid"
offline s3://testbucket >"$T/out" 2>"$T/err" &
waiting=$!
wait_until 30 grep -q "waiting for a mount that is ending" "$T/out"
ok $? "sync waits for a mount that is ending"
kill -CONT "$(mnt_pid)"
wait $waiting
is "$?" 0 "and ends when it has"
is "$(s3_sha ending)" "$(sha "$T/big")" "with what was closed in the bucket"
mnt_reap

# ---- where the cache is ----
if [ "$(stat -f -c %T /dev/shm)" = tmpfs ]; then
    d=$(mktemp -d /dev/shm/mlopsfs-cache.XXXXXX)
    at_exit "rm -rf --one-file-system '$d'"
    : >"$T/mount.log"
    mnt_up "cache_dir=$d"
    is "$(grep -c "cache_dir $d is on tmpfs" "$T/mount.log")" 1 "a cache_dir on tmpfs: one line says what that means"
    mnt_down
else
    skip "a cache_dir on tmpfs" "/dev/shm is none"
fi
done_testing
