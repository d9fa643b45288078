#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Requests fail as servers and networks do (1 in 10); nobody who works on the mount notices.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
store_up
diag "MLOPSFS_SEED=$MLOPSFS_SEED"
f="fault=rate=0.1\\,seed=$MLOPSFS_SEED"
mnt_up "$f" || bail_out "no mount while 1 in 10 fails"
tree=$T/tree
mkdir -p "$tree/a/b" "$tree/empty"
for i in {1..25}; do gen "$i" $((i * 5000)) >"$tree/a/f$i"; done
gen 30 20000000 >"$tree/a/b/big"
ln -s b/big "$tree/a/link"
chmod 640 "$tree/a/f3"
cmd_ok "cp -a" cp -a "$tree" "$MNT/t"
is "$(diff -r --no-dereference "$tree" "$MNT/t")" "" "the same bytes"
cmd_ok "chmod, touch, mv, rm" bash -c "cd '$MNT/t/a' && chmod 600 f* && touch -d 2001-01-01 f1 && for i in 5 6 7 8; do mv f\$i g\$i; done && rm f1{0..9}"
cmd_ok "rename a directory" mv "$MNT/t" "$MNT/u"
cmd_ok "overwrite in the middle" bash -c "printf middle | dd of='$MNT/u/a/b/big' bs=1 seek=9999999 conv=notrunc status=none"
mkdir "$MNT/fsx" "$T/fsx"
cmd_ok "random operations" timeout 300 "$(dirname "$MLOPSFS_BIN")/tests/mount/fsx" -S "$MLOPSFS_SEED" -N 1500 -s "$T/fsx" "$MNT/fsx"
mnt_again
is "$(ls "$MNT/u/a" | tr '\n' ' ')" "b f1 f2 f20 f21 f22 f23 f24 f25 f3 f4 f9 g5 g6 g7 g8 link " "after a remount without faults: the names"
for i in 2 20 25; do cmd_ok "f$i" cmp "$tree/a/f$i" "$MNT/u/a/f$i"; done
cmd_ok "g5" cmp "$tree/a/f5" "$MNT/u/a/g5"
is "$(sha "$MNT/u/a/b/big")" "$( { gen 30 9999999; printf middle; gen 30 20000000 | tail -c +10000006; } | sha)" "the big one"
is "$(diff -r "$T/fsx" "$MNT/fsx")" "" "the files of the random operations"
# Every kind alone.
for k in timeout reset 500 503 cut; do
    mnt_again "fault=rate=0.2\\,seed=$MLOPSFS_SEED\\,kinds=$k"
    cmd_ok "$k: write and read" timeout 200 bash -c "$(declare -f gen); gen 4 12000000 >'$MNT/k.$k' && gen 4 12000000 | cmp - '$MNT/k.$k' && echo x >>'$MNT/k.$k' && rm '$MNT/k.$k'"
    mnt_again "fault=rate=0.2\\,seed=$MLOPSFS_SEED\\,kinds=$k"
    cmd_ok "$k: cold reads" cmp "$tree/a/f20" "$MNT/u/a/f20"
done
# Everything fails: errors, no hang, no loss of what was there.
mnt_again "op_timeout=2s" "fault=rate=1.0\\,seed=1\\,verbs=PUT+MPU_CREATE+MPU_PART+MPU_COMPLETE+COPY\\,kinds=500"
cmd_fails "when every PUT fails, close says so" timeout 100 cp "$tree/a/f2" "$MNT/never"
cmd_fails "and fsync" timeout 100 python3 -c 'import os, sys
f = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); os.write(f, b"x"); os.fsync(f)' "$MNT/never2"
cmd_fails "an overwrite fails" timeout 100 cp "$tree/a/f2" "$MNT/u/a/f20"
fusermount3 -u "$MNT" || umount "$MNT"
mnt_reap
mnt_up || bail_out "no mount"
cmd_ok "the next mount has what was sealed" "$MLOPSFS_BIN" sync "$MNT"
cmd_ok "an overwrite" cmp "$tree/a/f2" "$MNT/u/a/f20"
cmd_ok "a new file" cmp "$tree/a/f2" "$MNT/never"
is "$(cat "$MNT/never2")" x "what an fsync had failed for"
mnt_again
cmd_ok "and brought it into the bucket" cmp "$tree/a/f2" "$MNT/never"
done_testing
