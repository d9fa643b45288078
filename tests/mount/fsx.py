# SPDX-License-Identifier: Apache-2.0
"""Random operations on one file of a mount and on a copy in memory, compared all along.

fsx.py FILE OPERATIONS [MAXSIZE]; MLOPSFS_SEED decides what is done. Leaves FILE.want beside it in
the directory SHADOW (the environment), for a comparison after a remount."""
import os
import random
import sys

path, operations = sys.argv[1], int(sys.argv[2])
limit = int(sys.argv[3]) if len(sys.argv) > 3 else 2_000_000
r = random.Random(int(os.environ["MLOPSFS_SEED"]))
want = bytearray()
done = []
f = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o644)


def fail(text):
    sys.exit("%s\nlast operations: %s" % (text, ", ".join(done[-12:])))


def span(end):
    a = r.randrange(end)
    n = r.choice([1, 100, 4096, 65536, 131072, 300000])
    return a, min(limit, a + r.randrange(1, n + 1))


def check(a, b, fd):
    got = b""
    while len(got) < b - a:
        piece = os.pread(fd, b - a - len(got), a + len(got))
        if not piece:
            break
        got += piece
    if got != want[a:b]:
        at = next((i for i in range(min(len(got), b - a)) if got[i] != want[a + i]), len(got))
        fail("read %d..%d: %d bytes, wrong from %d on" % (a, b, len(got), a + at))


for i in range(operations):
    k = r.random()
    if k < 0.35:
        a, b = span(limit)
        data = r.randbytes(b - a)
        done.append("write %d..%d" % (a, b))
        if os.pwrite(f, data, a) != b - a:
            fail("short write")
        if len(want) < a:
            want.extend(bytes(a - len(want)))
        want[a:b] = data
    elif k < 0.65 and want:
        a, b = span(len(want))
        done.append("read %d..%d" % (a, b))
        check(a, min(b, len(want)), f)
    elif k < 0.73:
        n = r.choice([0, r.randrange(limit), r.randrange(len(want) + 1), len(want)])
        done.append("%struncate %d" % ("f" if i % 2 else "", n))
        if i % 2:
            os.ftruncate(f, n)
        else:
            os.truncate(path, n)
        if n <= len(want):
            del want[n:]
        else:
            want.extend(bytes(n - len(want)))
    elif k < 0.80:
        data = r.randbytes(r.randrange(1, 50000))
        if len(want) + len(data) <= limit:
            done.append("append %d" % len(data))
            g = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(g, data)
            if r.random() < 0.3:
                os.pwrite(g, b"", 0)
            os.close(g)
            want.extend(data)
    elif k < 0.86:
        done.append("fsync")
        os.fsync(f)
    elif k < 0.93:
        done.append("reopen")
        os.close(f)
        f = os.open(path, os.O_RDWR)
    elif k < 0.96:
        done.append("rename")
        other = path + ".moved"
        os.rename(path, other)
        if r.random() < 0.5:
            os.rename(other, path)
        else:
            check(0, len(want), f)
            os.rename(other, path)
    elif k < 0.98:
        done.append("chmod")
        os.chmod(path, r.choice([0o600, 0o644, 0o755]))
    else:
        done.append("read all through a second handle")
        g = os.open(path, os.O_RDONLY)
        check(0, len(want), g)
        if os.pread(g, 100, len(want)):
            fail("bytes past the end")
        os.close(g)
    if os.fstat(f).st_size != len(want):
        fail("size %d, wanted %d" % (os.fstat(f).st_size, len(want)))
check(0, len(want), f)
os.close(f)
if os.stat(path).st_size != len(want):
    fail("size after close %d, wanted %d" % (os.stat(path).st_size, len(want)))
with open(os.path.join(os.environ["SHADOW"], os.path.basename(path)), "wb") as out:
    out.write(want)
