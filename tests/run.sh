#!/usr/bin/env bash
# Sets everything up, then runs all tests. Arguments go to ctest:
#   tests/run.sh -R responsibilities     only the tests that match
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/common.sh"

"$root/scripts/setup.sh"
step "Testing"
cd "$root"
ctest --preset release --no-label-summary "$@" </dev/null ||
    fail "some tests failed; one alone: ctest --preset release -R NAME"
