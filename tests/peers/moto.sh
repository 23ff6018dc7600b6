#!/usr/bin/env bash
# The hook for the S3 of moto, with the real boto3.
cd "$(dirname "$0")/../.." || exit 2
export TIDEWIRE_LONG=1
exec python/tests/run.sh -k test_moto
