#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Random operations on files, compared with copies in memory (fsx.c); then after remounts, and on from there.
# FSX_OPERATIONS: how many in all, about (scripts/torture).
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
store_up
mnt_up part_size=5M || bail_out "no mount"
diag "MLOPSFS_SEED=$MLOPSFS_SEED"
fsx=$(dirname "$MLOPSFS_BIN")/tests/mount/fsx
n=$(($(sanitized && echo 6000 || echo "${FSX_OPERATIONS:-24000}") / 2))
run() { # NAME SEED ARGUMENTS…: in a directory of that name
    local name=$1 seed=$2
    shift 2
    mkdir -p "$MNT/$name" "$T/want/$name"
    cmd_ok "$name, seed $seed" timeout $((300 + n / 20)) "$fsx" -S "$seed" -s "$T/want/$name" "$@" "$MNT/$name"
}
same() {
    mnt_again part_size=5M "$@"
    for d in small big; do is "$(diff -r "$T/want/$d" "$MNT/$d")" "" "$d: the same after a remount"; done
    if foreign; then is "$(s3_sha big/f0)" "$(sha "$T/want/big/f0")" "and in the bucket"; fi
}
run small "$MLOPSFS_SEED" -N "$n"
run big "$MLOPSFS_SEED" -N $((n / 10)) -l 24000000 # of several parts: commits copy what did not change
same
for i in 1 2 3; do # what is in the bucket is changed
    run small $((MLOPSFS_SEED + i)) -N $((n / 40))
    run big $((MLOPSFS_SEED + i)) -N 40 -l 24000000
    same
done
mnt_again commit=background part_size=5M
run small $((MLOPSFS_SEED + 4)) -N "$n"
same
done_testing
