#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A file bigger than `disk`, and memory within `memory` and 50 MB; ENOSPC when it cannot be.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
store_up
size=$(bytes "${MLOPSFS_TEST_STREAM:-$(sanitized && echo 160M || echo 768M)}")
mnt_up disk=64M memory=64M || bail_out "no mount"
gen 1 "$size" >"$MNT/big" 2>"$T/err" &
writer=$!
most=0
while ! tap_gone $writer; do
    s=$(mnt_status staged)
    s=${s%% *}
    case $s in *[!0-9]* | '') ;; *) [ "$s" -gt "$most" ] && most=$s ;; esac
    tap_breath
done
wait $writer
ok $? "a file of $size bytes through 64 MiB of disk: $(<"$T/err")"
diag "staged at most $most bytes"
cmd_ok "never above disk" [ "$most" -le $((64 << 20)) ]
is "$(stat -c %s "$MNT/big")" "$size" "its size"
is "$(sha "$MNT/big")" "$(gen_sha 1 "$size")" "its bytes"
peak=$(mnt_peak)
diag "peak memory $((peak >> 20)) MiB"
if sanitized; then skip "peak memory" "sanitizers take their own"; else
    cmd_ok "peak memory is at most memory + 50 MB" [ "$peak" -le $(((64 << 20) + 50000000)) ]
fi
# A writer in the middle of a file, too short for a part of an upload.
staged() { local s; s=$(mnt_status staged); echo "${s%% *}"; }
no_staged() { [ "$(staged)" = 0 ]; }
wait_until 20 no_staged
ok $? "nothing is staged when all is in the bucket"
mkfifo "$T/go"
python3 -c 'import os, sys
f = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o644)
n = 10000000
assert os.write(f, b"x" * n) == n
print("wrote", flush=True)
sys.stdin.readline()
os.close(f)' "$MNT/held" <"$T/go" >"$T/held.out" 2>&1 &
writer=$!
exec {go}>"$T/go"
wrote() { grep -q . "$T/held.out" || tap_gone $writer; }
wait_until 60 wrote
is "$(<"$T/held.out")" wrote "a writer in the middle of a file"
s=$(staged)
cmd_ok "status shows what is staged: $s" [ "${s:-0}" -ge 10000000 ]
cmd_ok "and little more" [ "${s:-0}" -le 11000000 ]
exec {go}>&-
wait $writer
ok $? "it closes"
wait_until 20 no_staged
ok $? "nothing is staged any more"
rm "$MNT/held"

# Random writes cannot stream: past the budget that is ENOSPC, or slow, but never wrong.
cat >"$T/holes.py" <<'PY'
import errno, os, random, sys
f = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o644)
r = random.Random(int(os.environ["MLOPSFS_SEED"])); n = 160; order = list(range(n)); r.shuffle(order)
done = {}
for i in order:
    data = bytes([i]) * (1 << 20)
    try:
        os.pwrite(f, data, i << 20)
        done[i] = True
    except OSError as e:
        if e.errno != errno.ENOSPC: sys.exit("write: %r" % e)
        print("ENOSPC after %d MiB" % len(done)); break
for i in done:
    if os.pread(f, 1 << 20, i << 20) != bytes([i]) * (1 << 20): sys.exit("MiB %d is wrong" % i)
try: os.close(f)
except OSError as e: print("close: %r" % e)
PY
timeout 100 python3 "$T/holes.py" "$MNT/holes" >"$T/out" 2>&1
ok $? "160 MiB written at random through 64 MiB of disk: $(<"$T/out")"
rm -f "$MNT/holes"
wait_until 20 no_staged
ok $? "when it is removed nothing is staged any more"
cmd_ok "the next file fits again" bash -c "$(declare -f gen); gen 2 40000000 >'$MNT/next' && gen 2 40000000 | cmp - '$MNT/next'"
cmd_ok "a copy of the big one" cp "$MNT/big" "$MNT/big2"
mnt_again disk=64M memory=64M
is "$(sha "$MNT/big2")" "$(gen_sha 1 "$size")" "after a remount the copy is right"
if sanitized; then skip "peak memory of reading" "sanitizers take their own"; else
    peak=$(mnt_peak)
    diag "peak memory $((peak >> 20)) MiB"
    cmd_ok "peak memory of reading is at most memory + 50 MB" [ "$peak" -le $(((64 << 20) + 50000000)) ]
fi
# The disk under the cache is full.
if [ "$(id -u)" = 0 ]; then
    mnt_down
    mkdir "$T/tiny"
    mount -t tmpfs -o size=24m tiny "$T/tiny" && at_exit 'umount "$T/tiny"'
    mnt_up "cache_dir=$T/tiny" || bail_out "no mount with a small cache"
    timeout 200 python3 "$T/holes.py" "$MNT/holes" >"$T/out" 2>&1
    ok $? "cache_dir's own disk is full: $(<"$T/out")"
    like "$(<"$T/out")" ENOSPC "writers are told"
    rm -f "$MNT/holes"
    cmd_ok "the mount goes on" bash -c "echo x >'$MNT/small' && [ \"\$(cat '$MNT/small')\" = x ]"
    mnt_down
fi
done_testing
