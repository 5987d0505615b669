# Sourced by the other scripts.

step() { printf '\n== %s\n' "$*"; }

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# apt_install PACKAGE...: installs them, or fails with the list of them.
apt_install() {
    [ $# -gt 0 ] || return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        # Without a terminal nobody can type the password.
        if have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
            as_root=(sudo)
        else
            as_root=(no)
        fi
    fi
    if [ "${as_root[*]}" = no ] || ! have apt-get; then
        fail "these packages are missing and cannot be installed from here:" \
            "$* -- on Debian 12 or Ubuntu 24.04 run, as root:" \
            "apt-get install $*"
    fi
    step "Installing $*"
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get
        -o DPkg::Lock::Timeout=300)
    # Fresh lists, or the package versions they name may be gone.
    "${apt[@]}" update -q </dev/null &&
        "${apt[@]}" install -q -y --no-install-recommends "$@" </dev/null ||
        fail "apt-get could not install: $* -- see its message above;" \
            "install them by hand and run this again."
}

# Prints the first interpreter that can draw. The distribution's comes first:
# another python on PATH does not see python3-matplotlib.
plot_python() {
    local python
    for python in /usr/bin/python3 python3; do
        if "$python" -c 'import matplotlib' >/dev/null 2>&1; then
            command -v "$python"
            return 0
        fi
    done
    return 1
}
