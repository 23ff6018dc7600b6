#!/usr/bin/env bash
# What matching costs where events and rules are made to hurt, in instructions: see benches/benches/adversarial.
set -u
cd "$(dirname "$0")/../.." || exit 2
cargo bench --quiet -p tidewire-benches --bench adversarial
