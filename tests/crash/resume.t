#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 at half of the upload of a sealed file: the next mount goes on with the same multipart upload, and sends what was missing.
# MLOPSFS_TEST_RESUME: bytes of the file (400M).
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up
start_toxiproxy
size=$(bytes "${MLOPSFS_TEST_RESUME:-400M}") part=$((8 << 20))
parts=$(((size + part - 1) / part)) uploads=4
through=http://$(toxi_proxy s3 "127.0.0.1:$server_port")
# So slow that it is sealed before half of it is there: 32 MiB/s.
toxi_add s3 bandwidth upstream "{\"rate\":$((32768 / uploads))}"
up() { S3_ENDPOINT=$through mnt_up commit=background part_size=8M uploads=$uploads "disk=$((size * 3 / 2))"; }
up || bail_out "no mount"
export S3_MAX_TIME=600

uploading() { s3_curl "$S3_BUCKET?uploads=" -f | grep -o "<UploadId>[^<]*"; }
gen 1 "$size" | dd of="$MNT/file" bs=1M iflag=fullblock status=none
ok $? "the file is written and closed"
is "$(mnt_status sealed_files)" 1 "it is sealed"
# What is under way at the kill is lost, and counted.
half=$((parts / 2 + uploads + 1))
half_is_there() { [ "$(mnt_status 'requests MPU_PART')" -ge $half ]; }
wait_until 600 half_is_there
ok $? "half of it goes up"
mnt_kill
id=$(uploading)
is "$(wc -w <<<"$id")" 1 "its upload is unfinished"
up || bail_out "no mount after the kill"
clean() { [ "$(mnt_status dirty_files)" = 0 ]; }
wait_until 600 clean
ok $? "the next mount brings it into the bucket"
is "$(mnt_status 'requests MPU_CREATE')" "" "by the same upload"
sent=$(mnt_status bytes_out)
diag "$("$MLOPSFS_BIN" status "$MNT" | grep requests | tr '\n' ' ')"
diag "$parts parts; the next mount sent $(mnt_status 'requests MPU_PART') of them, $sent bytes"
cmd_ok "at most 55% of it are sent again" [ "$sent" -le $((size * 55 / 100)) ]
toxi_del s3 bandwidth_upstream
is "$(s3_sha file)" "$(gen_sha 1 "$size")" "it is whole"
is "$(uploading)" "" "no upload is left"
mnt_down
ok $? "umount"
done_testing
