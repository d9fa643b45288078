#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Somebody else changes an object while it is written here: on_conflict says what becomes of both.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
store_up

beside() { find "$MNT" -maxdepth 1 -name "$1 (conflict *" | sort; } # NAME (without extension): the files beside it
count() { beside "$1" | grep -c .; }
state() { getfattr --only-values -n user.s3.state "$1"; }
listed() { ls "$MNT" >"$T/ls" && grep -qxF "$1" "$T/ls"; }

# What an earlier mount left meets theirs. (So it can be tried where nobody else reaches the bucket: through another mount.)
left() { # MODE: `old.txt` is sealed by a mount that cannot store it and is killed; theirs is written; a mount with MODE follows
    mnt_up || bail_out "no mount"
    echo base >"$MNT/old.txt"
    mnt_down
    mnt_up commit=background op_timeout=1s 'fault=rate=1\,seed=1\,verbs=PUT\,kinds=500' || bail_out "no mount"
    echo ours >"$MNT/old.txt"
    mnt_kill
    mnt_up "cache_dir=$T/cache2" || bail_out "no mount for theirs"
    echo theirs >"$MNT/old.txt"
    mnt_down
    mnt_up attr_ttl=0s dir_ttl=0s "$@" || bail_out "no mount"
}
left on_conflict=keep-both
cmd_ok "what an earlier mount left comes into the bucket" "$MLOPSFS_BIN" sync "$MNT"
is "$(cat "$MNT/old.txt")" theirs "beside theirs"
is "$(count old):$(cat "$(beside old)")" 1:ours "as a file with a name that says so"
like "$(beside old)" "old \(conflict 20[0-9-]+ [0-9-]+\)\.txt$" "of this form"
is "$(mnt_status conflicts)" 1 "status counts it"
like "$(<"$T/mount.log")" "old.txt was changed by someone else.*stored beside it as .*old \(conflict" "the log names both"
rm "$MNT"/old*
mnt_down
left on_conflict=overwrite
cmd_ok "or" "$MLOPSFS_BIN" sync "$MNT"
is "$(cat "$MNT/old.txt"):$(count old)" ours:0 "over theirs"
mnt_down
left on_conflict=fail
cmd_fails "or not at all" "$MLOPSFS_BIN" sync "$MNT"
is "$(cat "$MNT/old.txt"):$(count old)" ours:0 "what was written stays here"
cmd_ok "until it is given up" rm "$MNT/old.txt"
mnt_down
mnt_up on_conflict=keep-both attr_ttl=0s dir_ttl=0s || bail_out "no mount"
is "$(cat "$MNT/old.txt")" theirs "theirs is the object"
foreign || { done_testing; exit; }

# A writer, and theirs meanwhile.
cat >"$T/writer.py" <<'PY'
import os, sys
path, how, text = sys.argv[1:]
flags = {"new": os.O_CREAT | os.O_EXCL, "whole": os.O_TRUNC, "edit": 0, "append": os.O_APPEND}[how]
f = os.open(path, os.O_RDWR | flags)
if how == "edit":
    os.lseek(f, 100, os.SEEK_SET)
os.write(f, text.encode())
print("open", flush=True)
for line in sys.stdin:
    try:
        if line == "fsync\n":
            os.fsync(f)
        elif line == "more\n":
            os.write(f, b"more")
        elif line == "read\n":
            print("read", os.pread(f, 100, 0).decode(), flush=True)
            continue
        print("done", flush=True)
    except OSError as e:
        print(line.strip(), e.strerror, flush=True)
try:
    os.close(f)
    print("closed", flush=True)
except OSError as e:
    print("close:", e.strerror, flush=True)
PY
ours() { # NAME HOW TEXT
    rm -f "$T/out" # the reader of the fifo is there before its output is truncated
    python3 "$T/writer.py" "$MNT/$1" "$2" "$3" <"$T/in" >"$T/out" 2>&1 &
    writer=$!
    exec {to}>"$T/in"
    wait_until 30 grep -qs open "$T/out"
}
tell() { # LINE: the answer
    local n
    n=$(wc -l <"$T/out")
    echo "$1" >&"$to"
    answered() { [ "$(wc -l <"$T/out")" -gt "$n" ]; }
    wait_until 60 answered
    tail -n 1 "$T/out"
}
end() { # sets said: the answer to close
    exec {to}>&-
    wait "$writer"
    said=$(tail -n 1 "$T/out")
}
gen 1 3000000 >"$T/base"
mkfifo "$T/in"

mode() { mnt_again attr_ttl=0s dir_ttl=0s "on_conflict=$1"; }
ours both.mp4 new ours
s3_text both.mp4 theirs
end
is "$said" closed "both made it: close says yes, since ours is in the bucket"
is "$(s3_get both.mp4)" theirs "theirs has the name"
is "$(count both):$(cat "$(beside both)")" 1:ours "ours is beside it"
cmd_ok "the directory shows it at once" listed "$(basename "$(beside both)")"
is "$(cat "$MNT/both.mp4")" theirs "and what was opened by the name is theirs"
is "$(s3_ls both | wc -l):$(s3_get "$(basename "$(beside both)")")" 2:ours "nothing else was left"
is "$(state "$(beside both)"):$(state "$MNT/both.mp4")" clean:clean "both are clean"

s3_text twice.txt base
ours twice.txt whole ours
s3_text twice.txt theirs
is "$(tell fsync)" "done" "fsync says yes too"
is "$(cat "$MNT/twice.txt"):$(cat "$(beside twice)")" theirs:ours "both are there"
is "$(tell more):$(tell fsync)" "done:done" "the handle goes on"
is "$(tell read)" "read oursmore" "with ours"
end
is "$said" closed "to its end"
is "$(s3_get twice.txt):$(cat "$(beside twice)"):$(count twice)" theirs:oursmore:1 "in the file beside"
cmd_ok "it can be renamed" mv "$(beside twice)" "$MNT/mine"
cmd_ok "theirs is written to" bash -c "echo new >'$MNT/twice.txt'"
is "$(s3_get mine):$(s3_get twice.txt)" oursmore:new "each on its own"

s3_text gone base
ours gone whole ours
s3_rm gone
end
is "$said" closed "they removed it"
is "$(s3_get gone):$(count gone)" ours:0 "ours has the name: there are no two"

s3_text app.log "known "
cat "$MNT/app.log" >"$T/o"
ours app.log append ours
s3_text app.log theirs
end
is "$said" closed "an append to what is known here"
is "$(s3_get app.log):$(cat "$(beside app)")" "theirs:known ours" "is kept whole"

s3_put edit "$T/base"
ours edit edit ours
drop_caches
s3_text edit theirs
end
like "$said" "close: Stale" "an edit whose other bytes are gone cannot be kept beside: close says so"
is "$(s3_get edit):$(s3_ls edit | wc -l)" theirs:1 "theirs is as it was"
like "$(state "$MNT/edit")" "^failed: somebody else has changed the object" "its state says why"
like "$("$MLOPSFS_BIN" status "$MNT")" "failed edit: somebody else has changed" "so does status"
cmd_ok "it is given up" rm "$MNT/edit"
is "$(s3_get edit)" theirs "theirs stays"

gen 2 40000000 >"$T/big"
echo base >"$MNT/big.bin"
mkfifo "$T/pipe"
cp "$T/pipe" "$MNT/big.bin" &
copy=$!
exec {fd}>"$T/pipe"
head -c 39000000 "$T/big" >&"$fd"
s3_text big.bin theirs
tail -c 1000000 "$T/big" >&"$fd"
exec {fd}>&-
wait $copy
ok $? "a big one, which went up while it was written"
is "$(s3_get big.bin):$(sha "$(beside big)")" "theirs:$(sha "$T/big")" "is kept beside too"
no_uploads() { ! s3_curl "$S3_BUCKET?prefix=big.bin&uploads=" -f | grep -q '<UploadId>'; }
cmd_ok "and no upload is left" wait_until 60 no_uploads

mode overwrite
s3_text over base
ours over whole ours
s3_text over theirs
end
is "$said" closed "overwrite: close says yes"
is "$(s3_get over):$(count over)" ours:0 "ours is the object"
s3_put over2 "$T/base"
ours over2 edit ours
drop_caches
s3_text over2 theirs
end
like "$said" "close: Stale" "but no file is made of two versions"
is "$(s3_get over2)" theirs "theirs is as it was"
rm "$MNT/over2"

mode fail
s3_text fail base
ours fail whole ours
s3_text fail theirs
like "$(tell fsync)" "fsync Stale" "fail: fsync says so"
end
like "$said" "close: Stale" "so does close, which tries again"
is "$(s3_get fail):$(count fail):$(cat "$MNT/fail")" theirs:0:ours "theirs is the object, ours is here"
rm "$MNT/fail"
done_testing
