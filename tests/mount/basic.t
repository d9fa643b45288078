#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Files, directories, names and attributes, as a shell uses them; all of it again after a remount.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"

store_up
mnt_up || bail_out "no mount"
cd "$MNT" || bail_out "cannot enter the mount"

# ---- files ----
is "$(ls -A)" "" "an empty bucket is an empty directory"
cmd_ok "create" bash -c 'echo hello >f'
is "$(cat f)" hello "read back"
cmd_ok "append" bash -c 'echo world >>f'
is "$(cat f)" $'hello\nworld' "read back what was appended"
cmd_ok "overwrite" bash -c 'echo new >f'
is "$(cat f)" new "read back what was overwritten"
cmd_ok "an empty file" bash -c ': >empty'
is "$(stat -c %s:%F empty)" "0:regular empty file" "it is there and empty"
cmd_ok "write in the middle" bash -c 'printf 0123456789 >mid && printf XY | dd of=mid bs=1 seek=4 conv=notrunc status=none'
is "$(cat mid)" 0123XY6789 "read back"
cmd_ok "truncate down" truncate -s 5 mid
is "$(cat mid)" 0123X "read back"
cmd_ok "truncate up" truncate -s 8 mid
is "$(od -An -c mid | tr -d ' \n')" '0123X\0\0\0' "zeros are read where it grew"
cmd_ok "truncate to nothing, then write" bash -c 'truncate -s 0 mid && echo again >mid'
is "$(cat mid)" again "read back"
cmd_ok "a sparse file" bash -c 'printf end | dd of=sparse bs=1 seek=3000000 status=none'
is "$(stat -c %s sparse)" 3000003 "its size"
is "$(head -c 3000000 sparse | tr -d '\0' | wc -c):$(tail -c 3 sparse)" 0:end "its zeros and its end"
cmd_ok "truncate in the hole" truncate -s 1000001 sparse
is "$(tr -d '\0' <sparse | wc -c):$(wc -c <sparse)" 0:1000001 "zeros are left"
cmd_ok "a file of 20 MB" bash -c "$(declare -f gen); gen 3 20000000 >big"
is "$(sha big)" "$(gen_sha 3 20000000)" "read back"
is "$(tail -c +12345679 big | head -c 100000 | sha)" "$(gen 3 20000000 | tail -c +12345679 | head -c 100000 | sha)" "a piece of it"
cmd_ok "overwrite inside it" dd if=/dev/zero of=big bs=1000 seek=5000 count=100 conv=notrunc status=none
is "$(sha big)" "$( { gen 3 5000000; head -c 100000 /dev/zero; gen 3 20000000 | tail -c +5100001; } | sha)" "read back"
cmd_ok "append to it" bash -c 'echo tail >>big'
is "$(stat -c %s big):$(tail -c 5 big)" "20000005:tail" "its size and end"
errno_is EISDIR "writing to a directory" bash -c 'mkdir dd; echo x >dd'
errno_is ENOENT "reading what is not there" cat nothing
errno_is ENOTDIR "a path through a file" cat f/x
errno_is EEXIST "O_EXCL" python3 -c 'open("f", "x")'
errno_is ENAMETOOLONG "a name of 300 bytes" touch "$(printf 'x%.0s' {1..300})"
for n in 'with space' 'ünïcode-中文' $'tab\there' 'a+b=c&d%20e' '#hash?query' "quote'\"s" '-dash' 'star*' 'back\slash' $'new\nline' '..x' '...'; do
    cmd_ok "the name $(printf %q "$n")" bash -c 'printf %s "$1" >"./$1" && [ "$(cat "./$1")" = "$1" ] && rm "./$1" && [ ! -e "./$1" ]' - "$n"
done

# ---- directories ----
cmd_ok "mkdir" mkdir d
cmd_ok "mkdir -p" mkdir -p d/e/f
errno_is EEXIST "mkdir of what is there" mkdir d
errno_is ENOTEMPTY "rmdir of what is not empty" rmdir d
cmd_ok "rmdir" rmdir d/e/f
is "$(ls -A d/e)" "" "it is gone"
errno_is ENOTDIR "rmdir of a file" rmdir f
errno_is EISDIR "unlink of a directory" unlink d
cmd_ok "a file inside" bash -c 'echo in >d/e/file'
cmd_ok "a file beside a directory with its name as a prefix" bash -c 'echo x >d/e.txt; echo y >d/e-; echo z >d/e0'
is "$(ls -A d | tr '\n' ' ')" "e e- e.txt e0 " "all are listed"
cmd_ok "remove the last file" rm d/e/file
is "$(stat -c %F d/e)" directory "its directory stays"
cmd_ok "many files" bash -c 'mkdir many && for i in {1..300}; do : >many/$i; done'
is "$(ls many | wc -l)" 300 "all are listed"
cmd_ok "rm -r" rm -r many
cmd_fails "it is gone" stat many
cmd_ok "the working directory" bash -c 'cd d/e && [ "$(pwd -P)" = "$1/d/e" ]' - "$MNT"

# ---- names ----
cmd_ok "rename a file" bash -c 'echo r >r1 && mv r1 r2'
is "$(cat r2; ls r1 2>&1)" "r
ls: cannot access 'r1': No such file or directory" "it moved"
cmd_ok "rename over a file" bash -c 'echo old >r3 && mv -f r2 r3'
is "$(cat r3)" r "it was replaced"
cmd_ok "rename into a directory" mv r3 d/e/r4
is "$(cat d/e/r4)" r "it moved"
cmd_ok "rename of an empty file" bash -c ': >z1 && mv z1 z2 && [ ! -s z2 ] && rm z2'
cmd_ok "rename a directory" bash -c 'mkdir -p t/u/v && echo 1 >t/1 && echo 2 >t/u/2 && mv t t2'
is "$( (cd t2 && find . | sort) | tr '\n' ' '; cat t2/1 t2/u/2 | tr '\n' ' ')" ". ./1 ./u ./u/2 ./u/v 1 2 " "it moved with all in it"
cmd_fails "the old name is gone" stat t
cmd_ok "rename a directory over an empty one" bash -c 'mkdir emptydir && mv -T t2 emptydir && [ "$(cat emptydir/1)" = 1 ] && mv emptydir t2'
errno_is ENOTEMPTY "rename a directory over one that is not empty" mv -T d t2
errno_is EINVAL "rename a directory into itself" python3 -c 'import os; os.rename("d", "d/e/d")'
errno_is ENOTDIR "rename a directory over a file" python3 -c 'import os; os.rename("d", "f")'
errno_is EISDIR "rename a file over a directory" python3 -c 'import os; os.rename("f", "d")'
cmd_ok "rename to itself" python3 -c 'import os; os.rename("f", "f"); open("f").read()'
cmd_ok "rename of a file that is open and written" python3 -c '
import os
f = open("o1", "w"); f.write("first "); f.flush()
os.rename("o1", "o2")
f.write("second"); f.close()
assert open("o2").read() == "first second", open("o2").read()
assert not os.path.exists("o1")
os.unlink("o2")'
cmd_ok "write a new file and rename it over the old one, as editors do" python3 -c '
import os
for i in range(20):
    with open("doc.tmp", "w") as f:
        f.write("version %d\n" % i * 100); f.flush(); os.fsync(f.fileno())
    os.rename("doc.tmp", "doc")
    assert open("doc").read() == "version %d\n" % i * 100
os.unlink("doc")'
cmd_ok "RENAME_NOREPLACE and RENAME_EXCHANGE" python3 -c '
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def rename2(a, b, flags):
    if libc.renameat2(-100, a, -100, b, flags) == 0: return 0
    return ctypes.get_errno()
open("n1", "w").write("1"); open("n2", "w").write("2")
e = rename2(b"n1", b"n2", 1); assert e == errno.EEXIST, e
e = rename2(b"n1", b"n3", 1); assert e == 0, e
e = rename2(b"n3", b"n2", 2); assert e in (0, errno.EINVAL), e
for n in ("n2", "n3"): os.unlink(n)'
cmd_ok "unlink" rm f
cmd_fails "it is gone" stat f
cmd_ok "unlink while open" python3 -c '
import os
data = os.urandom(300000)
open("u", "wb").write(data)
r = open("u", "rb"); head = r.read(1000)
w = open("u", "r+b")
os.unlink("u")
assert not os.path.exists("u")
assert head + r.read() == data
w.seek(100000); w.write(b"x" * 10); w.flush()
r.seek(0); got = r.read()
assert got == data[:100000] + b"x" * 10 + data[100010:]
assert os.fstat(w.fileno()).st_nlink == 0, os.fstat(w.fileno()).st_nlink
w.close(); r.close()
assert not os.path.exists("u")'
cmd_ok "unlink a new file before it is closed" python3 -c '
import os
f = open("u2", "w"); f.write("x"); os.unlink("u2"); f.write("y"); f.flush(); f.close()
assert not os.path.exists("u2") and "u2" not in os.listdir(".")'
cmd_ok "create again what was unlinked while open" python3 -c '
import os
a = open("u3", "w+"); a.write("old"); a.flush()
os.unlink("u3")
open("u3", "w").write("new")
a.seek(0); assert a.read() == "old"
a.close()
assert open("u3").read() == "new"; os.unlink("u3")'
[ -n "$MLOPSFS_PLAIN" ] || errno_is EPERM "a hard link" ln big hard
cmd_ok "symlink" ln -s d/e/r4 link
is "$(readlink link):$(cat link):$(stat -c %F link)" "d/e/r4:r:symbolic link" "readlink, and through it"
cmd_ok "a dangling one" ln -s nowhere dangling
errno_is ENOENT "reading through it" cat dangling
cmd_ok "rename a symlink" mv dangling dangling2
is "$(readlink dangling2)" nowhere "it moved"
errno_is EEXIST "symlink over a name" ln -s x dangling2

# ---- attributes ----
cmd_ok "chmod, chown and touch of a file" bash -c 'echo a >a && chmod 4751 a && chown 1234:5678 a && chmod 4751 a && touch -d "2001-02-03 04:05:06.789" a'
cmd_ok "of a directory" bash -c 'mkdir ad && chmod 2750 ad && chown 12:34 ad && chmod 2750 ad && touch -d "1999-12-31 23:59:59" ad'
is "$(stat -c '%a %u %g %.3Y %s' a)" "4751 1234 5678 981173106.789 2" "they are as set, of the file"
is "$(stat -c '%a %u %g %Y' ad)" "2750 12 34 946684799" "of the directory"
is "$(cat a)" a "its content is as it was"
cmd_ok "chown of a symlink" chown -h 77:88 link
is "$(stat -c '%u:%g' link)" 77:88 "it is as set"
cmd_ok "a file's mtime moves on when it is written" bash -c 'echo m >m; touch -d 2000-01-01 m; echo n >>m; [ "$(stat -c %Y m)" -gt 1500000000 ]'
cmd_ok "a umask" bash -c 'umask 077; echo x >um; mkdir umd; [ "$(stat -c %a um umd | tr "\n" " ")" = "600 700 " ]'
cmd_ok "fchmod and futimens while it is written" python3 -c '
import os
f = open("fc", "w"); f.write("one"); f.flush()
os.fchmod(f.fileno(), 0o640); os.utime(f.fileno(), (1e9, 1e9))
f.close()
s = os.stat("fc"); assert (s.st_mode & 0o777, s.st_mtime, s.st_size) == (0o640, 1e9, 3), s'
like "$(df -P . | tail -n 1)" "[0-9]+%" "df"
cmd_ok "statfs" stat -f .
is "$(stat -f -c %l .)" 255 "names may have 255 bytes"
cmd_ok "fsync of a file and a directory" python3 -c '
import os
f = os.open("fs", os.O_CREAT | os.O_WRONLY); os.write(f, b"x"); os.fsync(f); os.fdatasync(f); os.close(f)
d = os.open(".", os.O_RDONLY); os.fsync(d); os.close(d)'
cmd_ok "fallocate, if it is taken, keeps the file right" bash -c 'printf abc >fa; fallocate -l 10 fa 2>/dev/null || exit 0; [ "$(stat -c %s fa)" = 10 ] && [ "$(head -c 3 fa)" = abc ]'
cmd_ok "mmap reads" python3 -c '
import mmap
f = open("big", "rb"); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
f.seek(7000000); assert m[7000000:7001000] == f.read(1000)'
cmd_ok "O_APPEND from two handles" python3 -c '
a = open("ap", "a"); b = open("ap", "a")
for i in range(50):
    a.write("a%d\n" % i); a.flush(); b.write("b%d\n" % i); b.flush()
a.close(); b.close()
assert open("ap").read() == "".join("a%d\nb%d\n" % (i, i) for i in range(50))'
cmd_ok "a reader sees at once what a writer wrote" python3 -c '
w = open("rw", "wb"); r = open("rw", "rb")
for i in range(20):
    w.write(b"%04d" % i); w.flush()
    assert r.read(4) == b"%04d" % i
w.close(); assert r.read() == b""'

# ---- and all of it after a remount ----
show() { find . -mindepth 1 -printf '%p %y %m %U %G %l\n' | sort; find . -type f -printf '%p %s %T@\n' | sort | sed 's/\.\([0-9]\{3\}\)[0-9]*$/.\1/'; find . -type f -exec sha256sum {} + | sort; }
before=$(show)
cd /
mnt_again
cd "$MNT" || bail_out "cannot enter the mount"
is "$(diff <(echo "$before") <(show))" "" "after a remount every name, mode, owner, time and byte is as it was"
is "$(stat -c '%a %u %g %.3Y %s' a)" "4751 1234 5678 981173106.789 2" "attributes of the file"
is "$(stat -c '%a %u %g %Y' ad)" "2750 12 34 946684799" "attributes of the directory"
is "$(readlink dangling2)" nowhere "the symlink"
is "$(stat -c %F d/e)" directory "the directories"
cmd_ok "rm -rf of everything" bash -c 'shopt -s dotglob; rm -rf ./*'
is "$(ls -A)" "" "nothing is listed"
cd /
mnt_again
is "$(ls -A "$MNT")" "" "nothing comes back after a remount"
if foreign; then is "$(s3_ls | wc -l)" 0 "nothing is left in the bucket"; fi
done_testing
