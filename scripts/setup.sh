#!/usr/bin/env bash
# Installs what is missing, configures build/release and builds it. Shared by
# eval/run_sample.sh, tests/run.sh and .ci/run.
#
#   scripts/setup.sh [TARGET...]     the targets to build; none: everything
#
# FAISS_ROOT in the environment points at a FAISS other than the system's.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/common.sh"

install_missing() {
    local missing=()
    have c++ || missing+=(build-essential)
    have cmake || missing+=(cmake)
    have ninja || have make || missing+=(ninja-build)
    if have dpkg-query; then
        local package
        for package in libopenblas-dev libhwy-dev libxxhash-dev libhdf5-dev \
            nlohmann-json3-dev libcli11-dev catch2 libbenchmark-dev; do
            is_installed "$package" || missing+=("$package")
        done
        [ -n "${FAISS_ROOT:-}" ] || is_installed libfaiss-dev ||
            missing+=(libfaiss-dev)
    fi
    plot_python >/dev/null || missing+=(python3-matplotlib)
    apt_install "${missing[@]}"
}

configure() {
    local cache=$build/CMakeCache.txt options=() python
    # The tests of the report need the interpreter that can draw.
    if python=$(plot_python); then
        options+=("-DPython3_EXECUTABLE=$python")
    fi
    # A build folder that came from elsewhere cannot be used.
    if [ -f "$cache" ] &&
        ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$cache"; then
        rm -rf "$cache" "$build/CMakeFiles"
    fi
    if [ ! -f "$cache" ]; then
        if have ninja; then options+=(-G Ninja); fi
        if have ccache; then
            options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
        fi
    fi
    [ -z "${CI:-}" ] || options+=(-DFAISS_FLASH_WERROR=ON)
    if [ -n "${FAISS_ROOT:-}" ]; then
        options+=("-DFAISS_ROOT=$FAISS_ROOT")
    fi
    (cd "$root" && cmake --preset release "${options[@]}") ||
        fail "configuring failed; the reason is above. After installing what" \
            "it names, run this again (rm -rf $build starts from nothing)."
}

install_missing

build=$root/build/release
mkdir -p "$build"
if have flock; then # two scripts started together take turns
    exec 9>"$build/.setup.lock"
    flock 9
fi
step "Configuring $build"
configure
step "Building"
targets=()
[ $# -eq 0 ] || targets=(--target "$@")
cmake --build "$build" --parallel "$(nproc)" "${targets[@]}" ||
    fail "building failed; the first error above is the reason."
