#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Programs that know nothing of object storage: cp, tar, rsync, git, vim, sqlite, python.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
store_up
mnt_up || bail_out "no mount"

# A tree with a bit of everything.
tree=$T/tree
mkdir -p "$tree"/{bin,lib/deep/er,empty,"sp ace"}
for i in {1..40}; do gen "$i" $((i * i * 37)) >"$tree/lib/f$i"; done
gen 77 9000000 >"$tree/lib/deep/big"
: >"$tree/zero"
ln -s ../lib/f1 "$tree/bin/link"
ln -s nowhere "$tree/dangling"
printf '#!/bin/sh\necho ran\n' >"$tree/bin/run"
chmod 755 "$tree/bin/run"
chmod 600 "$tree/lib/f2"
chmod 2770 "$tree/lib/deep"
[ "$(id -u)" = 0 ] && chown -h 1000:1001 "$tree/lib/f3" "$tree/bin/link"
find "$tree" -mindepth 1 -exec touch -h -d '2020-02-02 02:02:02.5' {} +
touch -d '2019-01-01' "$tree/lib/f4"
facts() { (cd "$1" && find . -mindepth 1 -printf '%p %y %m %U %G %s %l ' \( -type d -printf '%s\n' -o -printf '%T@\n' \) | sed 's/ [0-9]* *\([0-9]*\)$/ \1/' | sort); }
facts() { (cd "$1" && find . -mindepth 1 \( -type d -printf '%p d %m %U %G %T@\n' -o -printf '%p %y %m %U %G %s %l %T@\n' \) | sort); }
same() { # NAME DIR
    is "$(diff -r --no-dereference "$tree" "$2" 2>&1 | head -n 20)" "" "$1: the same bytes"
    is "$(diff <(facts "$tree") <(facts "$2") | head -n 20)" "" "$1: the same modes, owners and times"
}
cmd_ok "cp -a" cp -a "$tree" "$MNT/cp"
same "cp -a" "$MNT/cp"
is "$("$MNT/cp/bin/run")" ran "a program runs from the mount"
cmd_ok "cp -a inside" cp -a "$MNT/cp" "$MNT/cp2"
same "cp -a inside" "$MNT/cp2"
tar -C "$tree" --format=posix -cf "$T/t.tar" .
cmd_ok "tar x" bash -c "mkdir '$MNT/tar' && tar -C '$MNT/tar' -xpf '$T/t.tar'"
same "tar x" "$MNT/tar"
cmd_ok "tar d" tar -C "$MNT/tar" -df "$T/t.tar"
cmd_ok "tar c onto the mount, from it" tar -C "$MNT/tar" -cf "$MNT/t2.tar" .
cmd_ok "tar d of that" tar -C "$tree" -df "$MNT/t2.tar"
if have rsync; then
    cmd_ok "rsync -a" rsync -a "$tree/" "$MNT/rsync/"
    same "rsync -a" "$MNT/rsync"
    is "$(rsync -ai --stats "$tree/" "$MNT/rsync/" | grep -E '^[<>c]f|files transferred')" "Number of regular files transferred: 0" "rsync again transfers nothing"
    cmd_ok "rsync -aX" rsync -aX "$tree/" "$MNT/rsyncx/"
    echo changed >>"$tree/lib/f5"
    is "$(rsync -ai "$tree/" "$MNT/rsync/" | grep -c '^>f')" 1 "one changed file is transferred"
    cmd_ok "rsync --inplace" bash -c "printf XX | dd of='$tree/lib/deep/big' bs=1 seek=4000000 conv=notrunc status=none; rsync -a --inplace --no-whole-file '$tree/' '$MNT/rsync/'"
    cmd_ok "rsync --delete" bash -c "rm '$tree/lib/f6'; touch -d 2018-01-01 '$tree/lib'; rsync -a --delete '$tree/' '$MNT/rsync/' && rsync -a '$tree/' '$MNT/rsync/'"
    same "after rsync --delete" "$MNT/rsync"
else
    skip rsync "no rsync"
fi

if have git; then
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com
    git config --global init.defaultBranch main
    git config --global safe.directory '*'
    mkdir "$T/repo"
    (cd "$T/repo" && git init -q && for i in {1..12}; do cp "$tree/lib/f$((i + 10))" "file$i" && git add . && git commit -qm "change $i"; done)
    cmd_ok "git clone" git clone -q "$T/repo" "$MNT/clone"
    cmd_ok "git fsck" git -C "$MNT/clone" fsck --strict
    is "$(git -C "$MNT/clone" status --porcelain)" "" "git status is clean"
    is "$(git -C "$MNT/clone" log --oneline | wc -l)" 12 "git log"
    cmd_ok "a commit" bash -c "cd '$MNT/clone' && echo more >>file1 && git commit -qam more"
    cmd_ok "a branch, a merge, a gc" bash -c "cd '$MNT/clone' && git checkout -qb side HEAD~3 && echo s >side && git add side && git commit -qm side &&
        git checkout -q main && git merge -q -m merged side && git gc -q && git fsck --strict"
    cmd_ok "a push back" git -C "$MNT/clone" push -q origin main:pushed
    is "$(git -C "$T/repo" rev-parse pushed)" "$(git -C "$MNT/clone" rev-parse main)" "it arrived"
else
    skip git "no git"
fi
if have vim; then
    printf 'one\ntwo\nthree\n' >"$MNT/edit.txt"
    cmd_ok "vim" timeout 60 vim -u NONE -es -c '%s/two/2/' -c 'set backup | w' -c 'normal Gofour' -c 'wq' "$MNT/edit.txt"
    is "$(cat "$MNT/edit.txt")" $'one\n2\nthree\nfour' "what it wrote"
    is "$(ls -A "$MNT" | grep -c 'swp$')" 0 "its swap file is gone"
else
    skip vim "no vim"
fi
cmd_ok "sed -i" bash -c "echo abc >'$MNT/s' && sed -i s/b/X/ '$MNT/s' && [ \"\$(cat '$MNT/s')\" = aXc ]"
cat >"$T/sq.py" <<'PY'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("create table t (a integer primary key, b text)")
for n in range(3):
    with db:
        db.executemany("insert into t (b) values (?)", [("row %d" % i * 20,) for i in range(500)])
with db:
    db.execute("delete from t where a % 3 = 0")
db.close()
db = sqlite3.connect(sys.argv[1])
assert db.execute("pragma integrity_check").fetchone() == ("ok",)
assert db.execute("select count(*) from t").fetchone() == (1000,)
PY
cmd_ok "a SQLite database" python3 "$T/sq.py" "$MNT/db.sqlite"
cmd_ok "a zip file" python3 -c '
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as z:
    for i in range(1, 30):
        z.write("%s/lib/f%d" % (sys.argv[2], i if i != 6 else 7), "f%d" % i)
assert zipfile.ZipFile(sys.argv[1]).testzip() is None' "$MNT/a.zip" "$tree"
cmd_ok "sort -o, split, gzip" bash -c "cd '$MNT' && seq 20000 | shuf --random-source='$tree/lib/deep/big' >n && sort -n -o n n && seq 20000 | cmp - n && split -n 4 n part. && cat part.* | cmp - n && gzip n && gzip -t n.gz"
cmd_ok "find, du, grep -r" bash -c "cd '$MNT' && find . >/dev/null && du -s . >/dev/null && grep -rq 'change 1\|tree' . || true"
before=$(cd "$MNT" && find cp rsync tar -type f -exec sha256sum {} + | sort)
mnt_again
same "after a remount" "$MNT/rsync"
is "$(cd "$MNT" && find cp rsync tar -type f -exec sha256sum {} + | sort | diff - <(echo "$before"))" "" "after a remount the bytes are as they were"
if have git; then cmd_ok "git fsck after a remount" git -C "$MNT/clone" fsck --strict; fi
cmd_ok "rm -rf of all of it" bash -c "rm -rf '$MNT'/*"
is "$(ls -A "$MNT")" "" "nothing is left"
done_testing
