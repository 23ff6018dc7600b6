#!/usr/bin/env bash
# The model check of ring and receipts with more interruptions, and whether it finds mistakes: each mutant below is the
# real code with one line changed, and some model must fail on it. See tests/model.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 2
root=$PWD
passed=0 failed=0
copy=$(mktemp -d) || exit 2
trap 'rm -rf "$copy"' EXIT

count() { # awk reads what cargo printed
    awk '/^test result: / { p += $4; f += $6 } END { if (p + f == 0) f = 1; print p + 0, f + 0 }'
}

if [ "${1:-}" != mutants ]; then
    read -r p f < <(TIDEWIRE_LONG=1 cargo test -p tidewire-model -- --show-output 2>&1 | tee -a /dev/stderr | count)
    passed=$p failed=$f
fi

tar --exclude=./target --exclude=./fuzz/target --exclude=./.git -cf - . | tar -xf - -C "$copy" || exit 2
cd "$copy" || exit 2
export CARGO_TARGET_DIR=$root/target/mutants
unset TIDEWIRE_LONG

# mutant FILE SED TEST...: the tests of the model that could find it.
mutant() {
    local file=core/src/shard/$1.rs change=$2 binary=$1
    # Those of other directories are in one binary of the directory's name.
    case $1 in */*) file=core/src/$1.rs binary=${1%%/*} ;; esac
    shift 2
    cp "$root/$file" "$file"
    sed -i "$change" "$file"
    if cmp -s "$root/$file" "$file"; then
        echo "FAILED: nothing to change for $change"
        failed=$((failed + 1))
    elif ! cargo test -q -p tidewire-model --test "$binary" --no-run 2>/dev/null; then
        echo "FAILED: does not compile: $change"
        failed=$((failed + 1))
    elif timeout 900 cargo test -q -p tidewire-model --test "$binary" -- "$@" >/dev/null 2>&1; then
        echo "FAILED: not found: $change"
        failed=$((failed + 1))
    else
        echo "found: $change"
        passed=$((passed + 1))
    fi
    cp "$root/$file" "$file"
}

# Records: claimed, written, committed, read, and their space claimed again.
records=(records_of_two space_is_taken)
mutant ring '/header\[1\].store/s/Release/Relaxed/' "${records[@]}"
mutant ring '/header\[1\].load(Ordering::Acquire) != /s/Acquire/Relaxed/' "${records[@]}"
mutant ring '/ring.head.store/s/Release/Relaxed/' "${records[@]}"
mutant ring '/let head = self.head.load(Ordering::Acquire)/s/Acquire/Relaxed/' "${records[@]}"
mutant ring '/head_seen.store/s/Release/Relaxed/' "${records[@]}"
mutant ring '/head_seen.load/s/Acquire/Relaxed/' "${records[@]}"
mutant ring 's/if to_end < need { to_end } else { 0 }/0/' "${records[@]}"
mutant ring 's/if header\[1\].load(Ordering::Acquire) != ring.stamp(at)/if header[1].load(Ordering::Acquire) == 0/' "${records[@]}"
# Sleep and wake-up.
mutant ring 's/if self.has_record() {/if false {/' no_wake_up_is_lost
mutant ring 's/self.ring.fences.heavy();//' no_wake_up_is_lost
mutant ring 's/self.fences.light();//' no_wake_up_is_lost
mutant ring 's/(state == NAPPING && urgent)/false/' no_wake_up_is_lost
mutant ring '/self.ring.waker.register/,/Pending/s/== AWAKE/== 77/' no_wake_up_is_lost
mutant ring '/pub fn close/,/^    }/s/self.wake();//' closing_wakes_the
mutant ring '/pub fn wake(/,/^    }/s/fence(Ordering::SeqCst);//' closing_wakes_the who_waits
# Waiting for space.
mutant ring '/if at != start/,/^        }/s/fence(Ordering::SeqCst);//' who_waits_for_space
mutant ring 's/ring.space.notify_all();//' who_waits_for_space
mutant ring 's/self.space.notify_all();//' closing_wakes_who
mutant ring 's/ \&\& !self.is_closed()//' closing_wakes_who
mutant ring 's/if self.used() > self.capacity \/ 2 \&\& !self.is_closed()/if true/' who_waits_for_space
mutant ring '/pub fn wait_for_space/,/^    }/s/self.wake();//' who_waits_for_space
# Receipts.
mutant progress '/fn wake(/,/^    }/s/fence(Ordering::SeqCst);//' who_
mutant progress '/fn poll(/,/^    }/s/fence(Ordering::SeqCst);/return Poll::Pending;/' who_
mutant progress '/^        fence(Ordering::SeqCst);$/,/^    }/s/fence(Ordering::SeqCst);//' who_
mutant progress '/fn poll(/,/^    }/s/self.waiting.store(waiters.len(), Ordering::Relaxed);//' who_
mutant progress '/w.position <= written/s/w.position <= synced/false/' who_
mutant progress 's/self.wake(|_| true);//' who_

# The ring between processes: its records, its reader's sleep, and its writer's wait for space.
mutant shared/ring '/client.tail.store(self.tail/s/Release/Relaxed/' no_wake_up
mutant shared/ring '/pub(super) fn look/,/^    }/s/Acquire/Relaxed/' no_wake_up
mutant shared/ring '/server.head.store(self.head/s/Release/Relaxed/' a_client_that
mutant shared/ring '/pub(super) fn has_space/,/^    }/s/Acquire/Relaxed/' a_client_that
mutant shared/status '/fn set_doing/,/^    }/s/fence(Ordering::SeqCst);//' no_wake_up
mutant shared/status '/fn sleeps/,/^    }/s/fence(Ordering::SeqCst);//' no_wake_up
mutant shared/status 's/if !has_more() {/if true {/' no_wake_up
mutant shared/status 's/(urgent \&\& doing != Doing::Awake as u32)/false/' no_wake_up
mutant shared/ring '/fn want_space/,/^    }/s/fence(Ordering::SeqCst);//' a_client_that
mutant shared/ring '/fn space_wanted/,/^    }/s/fence(Ordering::SeqCst);//' a_client_that
mutant shared/ring '/s.written.store(position/s/Release/Relaxed/' what_the_server

echo "$passed passed, $failed failed"
[ $failed = 0 ]
