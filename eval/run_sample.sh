#!/usr/bin/env bash
# From nothing to the result: sets everything up, compares stock FAISS with
# soft-trained, multi-assigned indexes on the bundled SIFT descriptors, and
# writes curves.csv, summary.json, plots and report.html.
#
#   eval/run_sample.sh [OUTDIR]          default: results/sample
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/common.sh"

case ${1:-} in
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    -*) fail "unknown option $1; see --help" ;;
esac
out=${1:-$root/results/sample}
mkdir -p "$out" || fail "cannot make the folder $out; give another one."
out=$(cd "$out" && pwd)
[ -w "$out" ] || fail "cannot write to $out; give another folder."

sample=$root/datasets/wallsift-128-euclidean.hdf5
[ -f "$sample" ] || fail "$sample is missing; it belongs to the checkout:" \
    "git checkout -- datasets"

"$root/scripts/setup.sh" flash_eval

step "Comparing (a minute or two)"
"$root/build/release/eval/flash_eval" --preset sample --dataset "$sample" \
    --out "$out" </dev/null || fail "the comparison failed, see above."

step "Drawing"
"$(plot_python)" "$root/eval/report.py" "$out" ||
    fail "the plots failed; curves.csv and summary.json are in $out."
printf '\nThe report: %s\n' "$out/report.html"
