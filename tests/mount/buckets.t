#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# s3:// as the source: every bucket is a directory.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up
s3_mb second-bucket
S3_BUCKET=second-bucket s3_text dir/file content
unset S3_BUCKET
SOURCE=s3://
mnt_up attr_ttl=0s dir_ttl=0s || bail_out "no mount of s3://"
is "$(ls "$MNT" | tr '\n' ' ')" "second-bucket testbucket " "every bucket is listed"
is "$(stat -c %F "$MNT/testbucket")" directory "as a directory"
is "$(cat "$MNT/second-bucket/dir/file")" content "with its objects"
cmd_ok "write into one" bash -c "echo x >'$MNT/testbucket/f'"
is "$(S3_BUCKET=testbucket s3_get f)" x "it is there"
cmd_ok "cp between buckets" cp -r "$MNT/second-bucket/dir" "$MNT/testbucket/"
cmd_ok "mv between buckets" mv "$MNT/testbucket/f" "$MNT/second-bucket/g"
is "$(S3_BUCKET=second-bucket s3_get g)" x "it moved"
cmd_fails "it is gone from the other" stat "$MNT/testbucket/f"
errno_is ENOENT "a bucket that is not there" ls "$MNT/no-such-bucket"
cmd_fails "mkdir at the top is refused" mkdir "$MNT/third"
cmd_fails "rmdir too" rmdir "$MNT/testbucket"
cmd_fails "a file at the top is refused" touch "$MNT/file"
cmd_fails "a bucket cannot be renamed" mv "$MNT/testbucket" "$MNT/other"
is "$(s3_buckets | tr '\n' ' ')" "second-bucket testbucket " "no bucket came or went"
cmd_ok "df" df "$MNT"
cmd_ok "find" find "$MNT"
s3_mb by-another
is "$(ls "$MNT" | tr '\n' ' ')" "by-another second-bucket testbucket " "a bucket that another client made"

# What the server honours is learnt in the bucket that is written to first.
is "$("$MLOPSFS_BIN" status "$MNT" | grep -c '^capabilities')" 1 "status shows capabilities"
if [ "$MLOPSFS_STORE" = minio ]; then
    mnt_again attr_ttl=0s dir_ttl=0s
    is "$(mnt_status capabilities)" "" "before the first write, nothing is known"
    gen 7 40000000 >"$T/big"
    S3_BUCKET=second-bucket s3_put big "$T/big"
    wait_until 20 test -e "$MNT/second-bucket/big"
    in0=$(mnt_status bytes_in) out0=$(mnt_status bytes_out)
    cmd_ok "a byte in the middle of 40 MB" bash -c "printf x | dd of='$MNT/second-bucket/big' bs=1 seek=20000000 conv=notrunc status=none"
    in1=$(mnt_status bytes_in) out1=$(mnt_status bytes_out)
    diag "$((in1 - in0)) bytes came in, $((out1 - out0)) went out"
    cmd_ok "few bytes came in" [ $((in1 - in0)) -le 10000000 ]
    cmd_ok "few went out" [ $((out1 - out0)) -le 10000000 ]
    printf x | dd of="$T/big" bs=1 seek=20000000 conv=notrunc status=none
    is "$(S3_BUCKET=second-bucket s3_sha big)" "$(sha "$T/big")" "the object is what it should be"
    caps=$(mnt_status capabilities)
    like "$caps" "^put_if complete_if copy_part .*head_tags$" "status shows what was found out"
    puts=$(mnt_status "requests PUT")
    cp "$T/.s3_text" "$MNT/testbucket/another"
    is "$(mnt_status capabilities):$(($(mnt_status "requests PUT") - puts))" "$caps:1" "it holds for the other bucket"
    is "$(S3_BUCKET=testbucket s3_ls .mlopsfs; S3_BUCKET=second-bucket s3_ls .mlopsfs)" "" "no probe is left"
    mnt_again attr_ttl=0s dir_ttl=0s "capabilities=put_if:delete_if"
    echo y >"$MNT/testbucket/another"
    is "$(mnt_status capabilities)" "put_if delete_if" "what the option says is not tried"
    cmd_ok "capabilities=none" mnt_again attr_ttl=0s dir_ttl=0s capabilities=none
    in0=$(mnt_status bytes_in)
    printf y | dd of="$MNT/second-bucket/big" bs=1 seek=20000000 conv=notrunc status=none
    cmd_ok "then all of it is moved" [ $(($(mnt_status bytes_in) - in0)) -ge 39000000 ]
    rm "$MNT/second-bucket/big" "$MNT/testbucket/another"
fi
mnt_again attr_ttl=0s dir_ttl=0s allow_bucket_ops=on
cmd_ok "with allow_bucket_ops mkdir makes a bucket" mkdir "$MNT/third"
like "$(s3_buckets)" third "it is there"
cmd_ok "write into it" bash -c "echo y >'$MNT/third/f'"
errno_is ENOTEMPTY "rmdir of a bucket that is not empty" rmdir "$MNT/third"
is "$(cat "$MNT/third/f")" y "nothing happened to it"
rm "$MNT/third/f"
cmd_ok "rmdir of an empty bucket" rmdir "$MNT/third"
unlike "$(s3_buckets)" third "it is gone"
errno_is EEXIST "mkdir of one that is there" mkdir "$MNT/testbucket"
cmd_fails "mkdir of a name that no bucket may have" mkdir "$MNT/No Such Name"
is "$(ls "$MNT" | tr '\n' ' ')" "by-another second-bucket testbucket " "the list is right again"
done_testing
