#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A handle reads on whatever we ourselves do to its file: rename, chmod, touch, a rename of its directory.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
store_up
mnt_up || bail_out "no mount"
mkdir "$MNT/d"
gen 1 30000000 >"$MNT/d/f"
for what in "a rename" "a rename of its directory" chmod touch; do
    mnt_again
    ls -l "$MNT/d" >/dev/null
    exec {fd}<"$MNT/d/f"
    head -c 1000 <&"$fd" | sha >/dev/null
    case $what in
    "a rename") mv "$MNT/d/f" "$MNT/d/g" || fail "mv" ;;
    "a rename of its directory") mv "$MNT/d" "$MNT/e" || fail "mv of a directory" ;;
    chmod) chmod 600 "$MNT/d/f" ;;
    touch) touch -d 2001-01-01 "$MNT/d/f" ;;
    esac
    cat <&"$fd" 2>"$T/err" >"$T/rest"
    is "$(sha "$T/rest")$(<"$T/err")" "$(gen 1 30000000 | tail -c +1001 | sha)" "a reader reads on after $what"
    exec {fd}<&-
    [ ! -e "$MNT/d/g" ] || mv "$MNT/d/g" "$MNT/d/f"
    [ ! -e "$MNT/e" ] || mv "$MNT/e" "$MNT/d"
    is "$(sha "$MNT/d/f")" "$(gen_sha 1 30000000)" "so does a new one"
done
# Requests are under way at the moment of the rename.
mnt_again
cat >"$T/race.py" <<'PY'
import os, sys, threading
top, n = sys.argv[1], int(sys.argv[2])
size = 30000000; want = open(top + "/d/f", "rb").read(); bad = []; stop = False
def read(t):
    try:
        while not stop:
            f = os.open(names[0], os.O_RDONLY)
            os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
            for off in range(0, size, 3000000):
                if os.pread(f, 100000, off) != want[off:off + 100000]: bad.append("wrong bytes at %d" % off)
            os.close(f)
    except FileNotFoundError: pass
    except OSError as e: bad.append("reader %d: %r" % (t, e))
for i in range(n):
    names = [top + "/d/f", top + "/d/g"]; stop = False
    ts = [threading.Thread(target=read, args=(t,)) for t in range(2)]
    [t.start() for t in ts]
    os.rename(*names)
    stop = True
    [t.join() for t in ts]
    os.rename(names[1], names[0])
sys.exit("; ".join(bad[:5]) or 0)
PY
cmd_ok "readers in full run see no error when their file is renamed" timeout 200 python3 "$T/race.py" "$MNT" 12
# A writer, whose file is renamed again and again.
cmd_ok "a writer does not notice either" python3 -c '
import os, sys
top = sys.argv[1]; names = [top + "/d/w0", top + "/d/w1"]
f = open(names[0], "wb", buffering=0); want = b""
for i in range(12):
    data = os.urandom(300000); f.write(data); want += data
    if i % 3 == 0: os.fsync(f.fileno())
    os.rename(names[i % 2], names[1 - i % 2])
f.close()
assert open(names[0], "rb").read() == want
assert not os.path.exists(names[1])' "$MNT"
done_testing
