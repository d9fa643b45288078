#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 while closes wait for the bucket: the next mount shows their files at once, as they were closed, and brings
# them there; what nobody had closed does not appear; no upload is left.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_foreign
store_up
mnt_up || bail_out "no mount"

# An upload whose creation was on its way when the server stood still may be made when it goes on: nobody knows of that one.
uploads() { s3_curl "$S3_BUCKET?uploads=" -f | grep -oE "<Key>dir/(unclosed|deep/big)</Key>" | wc -l; }
status_is() { [ "$(mnt_status "$1")" = "$2" ]; }
sealed() { mnt_status sealed_files; }
journals() { find "$T/cache" -name journal.db | wc -l; }
kept() { find "$T/cache" -name '*.staged' -size +0 | wc -l; }
alone() { [ "$(journals) $(kept)" = "1 0" ]; }

mkdir "$MNT/dir" "$MNT/dir/deep"
gen 5 30000000 >"$T/edited"
cp "$T/edited" "$MNT/edited"
cp "$T/edited" "$MNT/dir/moved-over"
printf changed | dd of="$T/edited" bs=1 seek=10000000 conv=notrunc status=none
gen 1 5000 >"$T/small"
gen 2 60000000 >"$T/big"
: >"$T/empty"

. "$TOP/tests/crash/writers.sh"
before=$(mnt_status 'requests MPU_PART')
writer dir/deep/big "$T/big" go.big
writer dir/unclosed "$T/big" never
parts() { [ "$(mnt_status 'requests MPU_PART')" = $((before + 4)) ] && status_is uploading 0; }
wait_until 60 parts || diag "parts: $("$MLOPSFS_BIN" status "$MNT" | grep -E 'MPU|uploading')"

for f in small empty; do writer "dir/deep/$f" "$T/$f" go.$f; done
writer edited - go.edited

# Closes that wait for a server which stands still.
kill -STOP "$server_pid"
for f in big small empty edited; do : >"$T/go.$f"; done
wait_until 60 status_is sealed_files 4 || diag "sealed: $(sealed); $("$MLOPSFS_BIN" status "$MNT" | grep '^dirty ')"
is "$(sealed)" 4 "what waits for the bucket is sealed"
mnt_kill
kill -CONT "$server_pid"
is "$(journals)" 1 "the journal stays"

mnt_up || bail_out "no mount after the kill"
is "$(cd "$MNT/dir/deep" && ls)" $'big\nempty\nsmall' "the next mount shows the files"
for f in small big empty; do cmd_ok "$f is as it was closed" cmp "$T/$f" "$MNT/dir/deep/$f"; done
cmd_ok "so is a file that was changed" cmp "$T/edited" "$MNT/edited"
cmd_fails "what nobody had closed is not there" test -e "$MNT/dir/unclosed"
cmd_ok "the mount brings them into the bucket" wait_until 120 status_is dirty_files 0
like "$(mnt_status 'requests MPU_PART')" '^[23]$' "parts that were there are not sent again"
for f in small big empty; do is "$(s3_sha "dir/deep/$f")" "$(sha "$T/$f")" "$f is in the bucket"; done
is "$(s3_sha edited)" "$(sha "$T/edited")" "and the changed one"
is "$(s3_exists dir/unclosed && echo there)" "" "and nothing that was not closed"
cmd_ok "of uploads that were known none is left" wait_until 60 eval '[ "$(uploads)" = 0 ]'
mnt_again
cmd_ok "nothing is left of the journals" wait_until 60 alone
is "$(sha "$MNT/dir/deep/big")" "$(sha "$T/big")" "after another mount it is the same"

# A mount that is killed while the server is away.
end_writers
writer late "$T/big" go.late
kill -STOP "$server_pid"
: >"$T/go.late"
wait_until 60 status_is sealed_files 1
mnt_kill
# Another mount of another bucket does not touch it.
kill -CONT "$server_pid"
s3_mb other
SOURCE=s3://other mnt_up && mnt_down
is "$(S3_BUCKET=testbucket s3_exists late && echo there)" "" "another bucket's mount leaves it alone"
mnt_up || bail_out "no mount after the second kill"
rm "$MNT/late"
cmd_ok "it can be removed before it is there" wait_until 60 status_is dirty_files 0
mnt_again
is "$(s3_exists late && echo there)" "" "and does not come back"
done_testing
