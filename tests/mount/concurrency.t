#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Many at once: writers and readers of own and of shared files, and of one directory.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
store_up
mnt_up || bail_out "no mount"
n=$(sanitized && echo 3000000 || echo 24000000)
pids=()
join() { # NAME
    local p bad=0
    for p in "${pids[@]}"; do wait "$p" || bad=$((bad + 1)); done
    pids=()
    is "$bad" 0 "$1"
}
for i in {1..8}; do
    ( gen "$i" "$n" >"$MNT/w$i" && [ "$(sha "$MNT/w$i")" = "$(gen_sha "$i" "$n")" ] ) &
    pids+=($!)
done
join "8 write and read back their own file"
mnt_again
for i in {1..8}; do
    ( for k in 0 1; do j=$(((i + k) % 8 + 1)); [ "$(sha "$MNT/w$j")" = "$(gen_sha $j "$n")" ] || exit 1; done ) &
    pids+=($!)
done
join "8 read all over each other"
mnt_again
for i in {1..8}; do
    [ "$i" -le 4 ] && { ( gen $((i + 20)) "$n" >"$MNT/x$i" ) & pids+=($!); }
    ( [ "$(sha "$MNT/w$i")" = "$(gen_sha "$i" "$n")" ] ) &
    pids+=($!)
done
join "8 read while 4 write"
is "$(for i in 1 2 3 4; do sha "$MNT/x$i"; done)" "$(for i in 1 2 3 4; do gen_sha $((i + 20)) "$n"; done)" "what the 4 wrote"
cat >"$T/pieces.py" <<'PY'
# Eight threads write their own stripes of one file at random, and read others' finished ones.
import os, random, sys, threading
path, size = sys.argv[1], int(sys.argv[2])
seed = int(os.environ["MLOPSFS_SEED"])
shadow = bytearray(size)
fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
os.ftruncate(fd, size)
bad = []
def work(t):
    try:
        r = random.Random(seed + t)
        f = os.open(path, os.O_RDWR)
        lo, hi = size * t // 8, size * (t + 1) // 8
        for _ in range(150):
            a = r.randrange(lo, hi); b = min(hi, a + r.randrange(1, 70000))
            data = r.randbytes(b - a)
            os.pwrite(f, data, a); shadow[a:b] = data
            a = r.randrange(lo, hi); b = min(hi, a + r.randrange(1, 70000))
            if os.pread(f, b - a, a) != shadow[a:b]:
                bad.append("thread %d reads %d..%d wrong" % (t, a, b))
        os.close(f)
    except Exception as e:
        bad.append("thread %d: %r" % (t, e))
ts = [threading.Thread(target=work, args=(t,)) for t in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
os.close(fd)
if open(path, "rb").read() != shadow: bad.append("the file is not what was written")
open(path + ".shadow", "wb").write(shadow)
sys.exit("; ".join(bad[:5]) or 0)
PY
cmd_ok "8 threads write stripes of one file" python3 "$T/pieces.py" "$MNT/stripes" 6000000
mnt_again
cmd_ok "it is the same after a remount" cmp "$MNT/stripes" "$MNT/stripes.shadow"
cat >"$T/names.py" <<'PY'
# Threads create, rename and remove names in one directory; each knows its own.
import os, random, sys, threading
top = sys.argv[1]; seed = int(os.environ["MLOPSFS_SEED"]); bad = []; mine = [None] * 6
def work(t):
    try:
        r = random.Random(seed * 7 + t); have = {}
        for i in range(int(sys.argv[2])):
            k = r.random(); name = "%s/t%d.%d" % (top, t, r.randrange(12))
            if k < .45 or not have:
                text = "%d %d" % (t, i)
                with open(name, "w") as f: f.write(text)
                have[name] = text
            elif k < .7:
                old = r.choice(sorted(have)); os.rename(old, name); have[name] = have.pop(old)
            elif k < .85:
                old = r.choice(sorted(have)); os.unlink(old); del have[old]
            else:
                old = r.choice(sorted(have))
                got = open(old).read()
                if got != have[old]: bad.append("%s holds %r, not %r" % (old, got, have[old]))
                os.listdir(top)
        mine[t] = have
    except Exception as e:
        bad.append("thread %d: %r" % (t, e))
ts = [threading.Thread(target=work, args=(t,)) for t in range(6)]
[t.start() for t in ts]; [t.join() for t in ts]
if not bad:
    want = sorted(os.path.basename(n) for h in mine for n in h)
    if sorted(os.listdir(top)) != want: bad.append("listed %s, wanted %s" % (sorted(os.listdir(top)), want))
    for h in mine:
        for n, text in h.items():
            if open(n).read() != text: bad.append("%s is wrong" % n)
sys.exit("; ".join(bad[:5]) or 0)
PY
mkdir "$MNT/names"
cmd_ok "6 threads create, rename and remove in one directory" python3 "$T/names.py" "$MNT/names" 120
list=$(ls "$MNT/names"; cat "$MNT"/names/*)
mnt_again
is "$(ls "$MNT/names"; cat "$MNT"/names/*)" "$list" "it is the same after a remount"
done_testing
