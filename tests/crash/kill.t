#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 while closes wait for the bucket: the next mount shows their files at once, as they were closed, and brings
# them there; what nobody had closed does not appear; no upload of ours is left, also none whose creation was not answered.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_foreign
store_up
# What is known of a file is believed: its close need not ask the server before it is sealed.
mnt_up attr_ttl=600s || bail_out "no mount"

# The uploads of these keys, or of all that are used here. (MinIO lists those of a whole key only.)
uploads() {
    local key
    for key in ${*:-dir/unclosed dir/deep/big dir/streamed edited}; do
        s3_curl "$S3_BUCKET?prefix=$(s3_encode "$key" all)&uploads=" -f | grep -oE "<UploadId>[^<]*"
    done | sort
}
n_uploads() { uploads "$@" | grep -c . || :; }
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
gen 7 20000000 >"$T/streamed"
: >"$T/empty"

. "$TOP/tests/crash/writers.sh"
before=$(mnt_status 'requests MPU_PART')
writer dir/deep/big "$T/big" go.big
writer dir/unclosed "$T/big" never
parts() { [ "$(mnt_status 'requests MPU_PART')" = $((before + 4)) ] && status_is uploading 0; }
wait_until 60 parts || diag "parts: $("$MLOPSFS_BIN" status "$MNT" | grep -E 'MPU|uploading')"

for f in small empty; do writer "dir/deep/$f" "$T/$f" go.$f; done
writer edited - go.edited
writer dir/streamed "$T/streamed" go.streamed 0
# Somebody else's.
theirs=$(s3_curl "$S3_BUCKET/edited?uploads=" -f -X POST | sed -n 's/.*<UploadId>\([^<]*\).*/\1/p')
s3_curl "$S3_BUCKET/edited?partNumber=1&uploadId=$theirs" -f -o /dev/null -T "$T/small" || bail_out "no part"

# Closes that wait for a server which stands still, and two uploads whose creation does: a stream's and a commit's.
created=$(mnt_status 'requests MPU_CREATE')
kill -STOP "$server_pid"
for f in big small empty edited streamed; do : >"$T/go.$f"; done
wait_until 60 status_is sealed_files 5 || diag "sealed: $(sealed); $("$MLOPSFS_BIN" status "$MNT" | grep '^dirty ')"
is "$(sealed)" 5 "what waits for the bucket is sealed"
cmd_ok "two uploads are being created" wait_until 60 status_is 'requests MPU_CREATE' $((created + 2))
mnt_kill
kill -CONT "$server_pid"
is "$(journals)" 1 "the journal stays"
# (versitygw takes no request from a connection that is closed by then.)
[ "$MLOPSFS_STORE" != minio ] || cmd_ok "they are created when nobody waits any more" wait_until 60 eval '[ "$(n_uploads dir/streamed):$(n_uploads edited)" = 1:2 ]'

mnt_up || bail_out "no mount after the kill"
is "$(cd "$MNT/dir/deep" && ls)" $'big\nempty\nsmall' "the next mount shows the files"
for f in small big empty; do cmd_ok "$f is as it was closed" cmp "$T/$f" "$MNT/dir/deep/$f"; done
cmd_ok "so is a file that was changed" cmp "$T/edited" "$MNT/edited"
cmd_fails "what nobody had closed is not there" test -e "$MNT/dir/unclosed"
cmd_ok "the mount brings them into the bucket" wait_until 120 status_is dirty_files 0
like "$(mnt_status 'requests MPU_PART')" '^[45]$' "parts that were there are not sent again"
for f in small big empty; do is "$(s3_sha "dir/deep/$f")" "$(sha "$T/$f")" "$f is in the bucket"; done
is "$(s3_sha edited)" "$(sha "$T/edited")" "and the changed one"
is "$(s3_exists dir/unclosed && echo there)" "" "and nothing that was not closed"
is "$(s3_sha dir/streamed)" "$(sha "$T/streamed")" "and the one whose upload had not begun"
cmd_ok "no upload of ours is left" wait_until 60 eval '[ "$(n_uploads)" = 1 ]'
is "$(uploads)" "<UploadId>$theirs" "and theirs is"
s3_curl "$S3_BUCKET/edited?uploadId=$theirs" -f -X DELETE
alone_again() { mnt_again && alone; } # what was adopted goes with its mount, and unanswered requests are waited for
cmd_ok "nothing is left of the journals" wait_until 120 alone_again
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
