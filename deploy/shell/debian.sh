# shellcheck shell=bash
# Packages from Debian, only those that miss. To be sourced, after progress.sh.

POLICY=/usr/sbin/policy-rc.d # Debian asks this program before it starts a service

# The newest Python would also do, but the pinned packages are tried with Debian's own 3.11.
find_python() {
    local name
    for name in python3.11 python3 python3.12 python3.13; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
}

# Debian keeps mosquitto in a folder that the PATH of an ordinary user lacks.
has_mosquitto() { PATH=$PATH:/usr/sbin:/usr/local/sbin command -v mosquitto >/dev/null; }
has_mosquitto_clients() { command -v mosquitto_pub >/dev/null && command -v mosquitto_sub >/dev/null; }
has_compiler() { command -v c++ >/dev/null && command -v cc >/dev/null; }

# What it takes to build and run Hunch: a list of the packages that miss.
missing_for_python() {
    local python
    python=$(find_python)
    if [[ -z $python ]] && command -v python3 >/dev/null; then
        fail "Hunch needs Python 3.11 or newer, here is $(python3 --version); Debian 12 brings 3.11"
    fi
    if [[ -z $python ]] || ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then say python3-venv; fi
    if ! has_compiler; then say g++; fi
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

require_root() {
    local by_hand="as root, run: apt-get install $*; then run this again"
    command -v apt-get >/dev/null || fail "this system has no apt-get; install yourself what Debian calls: $*"
    ((EUID == 0)) && return
    command -v sudo >/dev/null || fail "packages are missing, and neither root nor sudo is at hand; $by_hand"
    if [[ -t 0 ]]; then
        say "  sudo is needed to install: $*"
        sudo -v || fail "sudo refused; $by_hand"
    else
        sudo -n true 2>/dev/null || fail "sudo wants a password and there is no terminal to ask on; $by_hand"
    fi
}

# Debian starts a package's service as soon as it is installed. Hunch starts brokers of its own, and port 1883
# is not ours to take.
forbid_services() {
    if [[ -e $POLICY && ! -e $POLICY.before-hunch ]]; then as_root mv "$POLICY" "$POLICY.before-hunch"; fi
    printf '#!/bin/sh\n# put here by the set-up of Hunch while it installs mosquitto\nexit 101\n' |
        as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
    trap allow_services EXIT
}

allow_services() {
    as_root rm -f "$POLICY"
    if [[ -e $POLICY.before-hunch ]]; then as_root mv "$POLICY.before-hunch" "$POLICY"; fi
    trap - EXIT
}

# install_debian_packages LIST: LIST is a command that names what misses; it is asked again afterwards.
install_debian_packages() {
    local list=$1 packages
    packages=$("$list")
    [[ -n $packages ]] || return 0
    # shellcheck disable=SC2086 # a list of words
    set -- $packages
    require_root "$@"
    local apt=(as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300)
    step "asking Debian for its list of packages" "${apt[@]}" update
    [[ $packages != *mosquitto* ]] || forbid_services
    step "installing from Debian ($*)" "${apt[@]}" install -y --no-install-recommends "$@"
    if [[ $packages == *mosquitto* ]]; then
        as_root update-rc.d mosquitto disable >>"$LOG" 2>&1 || true # nor is it started at the next boot
        allow_services
        say "  Debian's mosquitto service stays switched off: Hunch starts its own"
    fi
    packages=$("$list")
    [[ -z $packages ]] || fail "Debian installed them, but their programs are missing: ${packages//$'\n'/, }"
}
