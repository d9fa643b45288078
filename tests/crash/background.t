#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# commit=background: close returns when the file is sealed, whatever the server does; it is brought into the bucket when that can
# be, by this mount or, after kill -9, by the next.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up
mnt_up commit=background op_timeout=2s || bail_out "no mount"
. "$TOP/tests/crash/writers.sh"

status_is() { [ "$(mnt_status "$1")" = "$2" ]; }
clean() { status_is dirty_files 0; }

# Close, and the bucket follows.
gen 1 300000 >"$T/one"
cp "$T/one" "$MNT/one"
cmd_ok "what was closed comes into the bucket" wait_until 60 clean
is "$(s3_sha one)" "$(sha "$T/one")" "as it was"
mkdir "$T/tree"
for i in {1..300}; do gen "$i" $((i * 17)) >"$T/tree/f$i"; done
cmd_ok "a tree of small files" cp -r "$T/tree" "$MNT/"
cmd_ok "sync waits for them" "$MLOPSFS_BIN" sync "$MNT"
is "$(mnt_status dirty_files):$(s3_ls tree/f | wc -l)" 0:300 "all are in the bucket"
is "$(s3_sha tree/f299)" "$(sha "$T/tree/f299")" "whole"
python3 - "$MNT/fsynced" <<'PY'
import os, sys
f = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(f, b"synced")
os.fsync(f)
PY
is "$(s3_get fsynced)" synced "fsync waits for the bucket"
for i in {1..50}; do echo "line $i" >>"$MNT/lines"; done
cmd_ok "fifty appends" "$MLOPSFS_BIN" sync "$MNT"
is "$(s3_get lines | sha)" "$(for i in {1..50}; do echo "line $i"; done | sha)" "all are there, in order"
echo gone >"$MNT/gone"
rm "$MNT/gone"
cmd_ok "what is removed meanwhile" "$MLOPSFS_BIN" sync "$MNT"
cmd_fails "does not come back" s3_exists gone
echo moved >"$MNT/before"
mv "$MNT/before" "$MNT/after"
cmd_ok "what is renamed meanwhile" "$MLOPSFS_BIN" sync "$MNT"
is "$(s3_get after):$(s3_exists before && echo there)" "moved:" "is at its new name alone"

# The server stands still: close returns all the same, and again after other changes.
gen 2 40000000 >"$T/big"
writer big "$T/big" go.big
writer small "$T/one" go.small
writer again "$T/one" go.again
writer one - go.one
kill -STOP "$server_pid"
for f in big small again; do : >"$T/go.$f"; done
for f in big small again; do
    wait_until 60 grep -q close "$T/go.$f.out"
    is "$(tail -n 1 "$T/go.$f.out")" closed "close returns while the server stands still: $f"
done
printf changed | dd of="$MNT/again" bs=1 seek=1000 conv=notrunc status=none
ok $? "a file that is on its way is changed and closed again"
printf changed | dd of="$T/one" bs=1 seek=1000 conv=notrunc status=none
is "$(mnt_status sealed_files)" 3 "what was closed is sealed"
is "$(sha "$MNT/again")" "$(sha "$T/one")" "and is read as it is"
mnt_kill
end_writers
kill -CONT "$server_pid"
mnt_up commit=background op_timeout=2s || bail_out "no mount after the kill"
cmd_ok "the next mount brings all into the bucket" wait_until 120 clean
is "$(s3_sha big)" "$(sha "$T/big")" "the big one"
is "$(s3_sha again)" "$(sha "$T/one")" "the one that was changed again"
gen 1 300000 >"$T/one"
is "$(s3_sha small)" "$(sha "$T/one")" "the small one"
is "$(s3_sha one)" "$(sha "$T/one")" "what was open is as it was"

# What is changed by name after the close, while a commit is on its way, comes behind it.
writer cut "$T/one" go.cut
writer mode "$T/one" go.mode
kill -STOP "$server_pid"
for f in cut mode; do : >"$T/go.$f"; done
cmd_ok "two files are sealed" wait_until 60 status_is sealed_files 2
cmd_ok "and under way" wait_until 60 eval '[ "$(mnt_status uploading)" -gt 0 ]'
end_writers
cmd_ok "one is truncated by name" python3 -c 'import os, sys; os.truncate(sys.argv[1], 1000)' "$MNT/cut"
cmd_ok "one gets another mode" chmod 600 "$MNT/mode"
kill -CONT "$server_pid"
cmd_ok "all comes into the bucket by itself" wait_until 60 clean
is "$(s3_get cut | wc -c)" 1000 "as long as it is now"
is "$(s3_header mode x-amz-meta-mode)" "$((0100600))" "with its mode"

# It fails for a while, and is tried again.
writer later "$T/one" go.later
kill -STOP "$server_pid"
: >"$T/go.later"
failed() { [ "$(mnt_status commit_errors)" -gt 0 ]; }
wait_until 60 failed
ok $? "a commit fails"
kill -CONT "$server_pid"
cmd_ok "and is made again by itself" wait_until 90 clean
is "$(s3_sha later)" "$(sha "$T/one")" "with the right bytes"
done_testing
