#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# MLOPSFS_TEST_BIG bytes (2G; sanitizer builds 64M) through the mount and back, also while 1 in 20 requests fails.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
size=$(bytes "${MLOPSFS_TEST_BIG:-$(sanitized && echo 64M || echo 2G)}")
size=$((size + 12345)) # no multiple of anything
store_up
want=$(gen 7 "$size" | sha)

round() { # NAME [OPTION…]
    local name=$1
    shift
    mnt_up "$@" || { fail "$name: mount"; return; }
    cmd_ok "$name: write" bash -c "$(declare -f gen); gen 7 $size | dd of='$MNT/big' bs=1M iflag=fullblock status=none"
    is "$(stat -c %s "$MNT/big")" "$size" "$name: its size"
    mnt_again "$@"
    drop_caches
    is "$(sha "$MNT/big")" "$want" "$name: sha256 of what is read back"
    if foreign; then is "$(S3_MAX_TIME=300 s3_sha big)" "$want" "$name: sha256 of what another client reads"; fi
    cmd_ok "$name: copy inside the mount" cp "$MNT/big" "$MNT/copy"
    is "$(sha "$MNT/copy")" "$want" "$name: sha256 of the copy"
    if [ $# -gt 0 ]; then cmd_ok "$name: requests did fail" [ "$(mnt_sum errors)" -gt 0 ]; fi
    cmd_ok "$name: unlink" rm "$MNT/big" "$MNT/copy"
    mnt_down
    ok $? "$name: umount"
}
round plain
if [ -z "$MLOPSFS_PLAIN" ]; then
    round "1 in 20 fails" "fault=rate=0.05\\,seed=$MLOPSFS_SEED"
fi
done_testing
