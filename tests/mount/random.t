#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Random writes, reads, truncates, appends, renames and reopens, compared with a copy in memory; then after a remount.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
store_up
mnt_up || bail_out "no mount"
diag "MLOPSFS_SEED=$MLOPSFS_SEED"
export SHADOW=$T/shadow
mkdir "$SHADOW"
n=$(sanitized && echo 120 || echo 300)
for i in 1 2 3 4; do
    MLOPSFS_SEED=$((MLOPSFS_SEED + i)) cmd_ok "seed $((MLOPSFS_SEED + i))" timeout 200 python3 "$TOP/tests/mount/fsx.py" "$MNT/f$i" "$n" $((i * 700000))
done
# One past the size of a part, so that commits copy what did not change.
MLOPSFS_SEED=$MLOPSFS_SEED cmd_ok "a bigger file" timeout 300 python3 "$TOP/tests/mount/fsx.py" "$MNT/f5" $((n / 3)) 40000000
mnt_again
for i in 1 2 3 4 5; do cmd_ok "file $i is the same after a remount" cmp "$SHADOW/f$i" "$MNT/f$i"; done
if foreign; then for i in 1 5; do is "$(s3_sha "f$i")" "$(sha "$SHADOW/f$i")" "the object $i"; done; fi
# Changes to objects that exist, a new handle each.
cat >"$T/edit.py" <<'PY'
import os, random, sys
path, want = sys.argv[1], bytearray(open(sys.argv[2], "rb").read())
r = random.Random(int(os.environ["MLOPSFS_SEED"]))
for i in range(12):
    f = os.open(path, os.O_RDWR)
    if not want:
        want = bytearray(r.randbytes(50000)); os.pwrite(f, want, 0)
    for _ in range(r.randrange(1, 4)):
        a = r.randrange(len(want)); data = r.randbytes(min(r.randrange(1, 20000), len(want) - a))
        os.pwrite(f, data, a); want[a:a + len(data)] = data
    os.close(f)
    if r.random() < .3:
        del want[r.randrange(len(want) // 2, len(want)):]; os.truncate(path, len(want))
    if open(path, "rb").read() != want: sys.exit("wrong after edit %d" % i)
open(sys.argv[2], "wb").write(want)
PY
for i in 1 5; do cmd_ok "edits of object $i" timeout 300 python3 "$T/edit.py" "$MNT/f$i" "$SHADOW/f$i"; done
mnt_again
for i in 1 5; do cmd_ok "file $i is the same after a remount" cmp "$SHADOW/f$i" "$MNT/f$i"; done
done_testing
