#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 1 MiB appended to a big object, and 4 KiB changed in its middle: the server copies what stays, little goes over the wire.
# MLOPSFS_TEST_APPEND: bytes of the object (2G), a multiple of 64M.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up
size=$(bytes "${MLOPSFS_TEST_APPEND:-2G}") part=$((64 << 20))
n=$((size / part))
export S3_MAX_TIME=300

# The object: one part, which the server copies n times.
gen 1 $part >"$T/part"
s3_put part "$T/part"
xml_of() { sed -n "s:.*<$1>\([^<]*\)</$1>.*:\1:p" | sed 's/&#34;\|&quot;/"/g'; }
id=$(s3_curl "$S3_BUCKET/big?uploads=" -f -X POST | xml_of UploadId)
body="<CompleteMultipartUpload>"
for ((i = 1; i <= n; i++)); do
    etag=$(s3_curl "$S3_BUCKET/big?partNumber=$i&uploadId=$id" -f -X PUT -H "x-amz-copy-source: /$S3_BUCKET/part" | xml_of ETag)
    body+="<Part><PartNumber>$i</PartNumber><ETag>$etag</ETag></Part>"
done
s3_curl "$S3_BUCKET/big?uploadId=$id" -f -o /dev/null -X POST --data-binary "$body</CompleteMultipartUpload>" -H "Content-Type: application/xml"
is "$(s3_header big content-length)" "$size" "an object of $((size >> 20)) MiB" || bail_out "no object"

mnt_up commit=background || bail_out "no mount"
wire() { echo $(($(mnt_status bytes_in) + $(mnt_status bytes_out))); }
gen 2 1048576 >"$T/more"
before=$(wire)
dd if="$T/more" of="$MNT/big" bs=1M oflag=append conv=notrunc status=none
ok $? "1 MiB is appended"
cmd_ok "sync" "$MLOPSFS_BIN" sync "$MNT"
moved=$(($(wire) - before))
diag "$moved bytes over the wire"
cmd_ok "less than 20 MiB moved" [ $moved -lt $((20 << 20)) ]
is "$(s3_header big content-length)" $((size + 1048576)) "the object has grown"

before=$(wire)
gen 3 4096 | dd of="$MNT/big" bs=4096 seek=$((size / 8192)) conv=notrunc status=none
ok $? "4 KiB in the middle are changed"
cmd_ok "sync" "$MLOPSFS_BIN" sync "$MNT"
moved=$(($(wire) - before))
diag "$moved bytes over the wire"
cmd_ok "less than 20 MiB moved" [ $moved -lt $((20 << 20)) ]
rest() { for ((i = 1; i <= n / 2; i++)); do cat "$T/part"; done; }
want=$({ rest; gen 3 4096; rest | tail -c +4097; cat "$T/more"; } | sha)
is "$(s3_sha big)" "$want" "its bytes are right"
mnt_down
ok $? "umount"
done_testing
