#!/usr/bin/env bash
# Makes this checkout ready to run. In: a Debian 12 machine (or a relative) with a network, root or sudo.
# Out: Mosquitto and a compiler from Debian where they are missing, and .venv with all that Hunch needs.
# Once that is done, running it again takes a moment, prints nothing and changes nothing.
# Exit codes: 0 ready; 1 something is missing that it could not bring: the last line says what, and the mend.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
LOG=$ROOT/.setup.log
STAMP=$VENV/hunch-setup           # the key of the set-up that was completed
LLAMA_STAMP=$VENV/hunch-llama     # the key of the llama.cpp that is installed
CMAKE_ARGS_FILE=$VENV/cmake-args  # the user's own build settings, given once
POLICY=/usr/sbin/policy-rc.d      # Debian asks this program before it starts a service
VENV_MB=1200                      # measured: 430 for .venv, 450 for compiler and broker, and some slack
COMPILE_MB=600                    # measured: 420 of temporary files while llama.cpp is compiled
MB_PER_COMPILER=700               # the largest source file of llama.cpp takes 400, and some slack

say() { printf '%s\n' "$*"; }
fail() {
    printf '\nset-up failed: %s\n' "$*" >&2
    exit 1
}

# ------------------------------------------------------------------------- is there anything to do?

# Code compiled for this processor may not run on another, so what was built elsewhere is built anew.
processor() {
    uname -m
    grep -m1 -E '^(flags|Features)' /proc/cpuinfo || true
}

llama_version() { sed -n 's/^llama-cpp-python==//p' "$ROOT/constraints.txt"; }

# CMAKE_ARGS="-DGGML_CUDA=on" make setup, once, is remembered: the next plain `make` must not undo it.
user_cmake_args() {
    if [[ -n ${CMAKE_ARGS+set} ]]; then
        say "$CMAKE_ARGS"
    elif [[ -r $CMAKE_ARGS_FILE ]]; then
        cat "$CMAKE_ARGS_FILE"
    fi
}

short_hash() { sha256sum | cut -c1-16; }

llama_key() { { processor; llama_version; say "$(user_cmake_args)"; cat "$ROOT/deploy/llama-build.cmake"; } | short_hash; }

setup_key() {
    { say "$ROOT"; llama_key; cat "$ROOT"/{pyproject.toml,constraints.txt,deploy/bootstrap.sh}; } | short_hash
}

# Debian keeps mosquitto in a folder that the PATH of an ordinary user lacks.
has_mosquitto() { PATH=$PATH:/usr/sbin:/usr/local/sbin command -v mosquitto >/dev/null; }
has_mosquitto_clients() { command -v mosquitto_pub >/dev/null && command -v mosquitto_sub >/dev/null; }
has_compiler() { command -v c++ >/dev/null && command -v cc >/dev/null; }

is_ready() {
    [[ -x $VENV/bin/python && -r $STAMP && $(<"$STAMP") == "$(setup_key)" ]] && has_mosquitto && has_mosquitto_clients
}

# ------------------------------------------------------------------------- progress and failure

as_text() { if (($1 < 60)); then say "$1 s"; else say "$(($1 / 60)) min $(($1 % 60)) s"; fi; }

# Sets `news` to what a line of output tells a person: "step 23 of 83", "numpy". Else leaves it.
read_news() {
    if [[ $1 =~ ^[[:space:]]*\[([0-9]+)/([0-9]+)\] ]]; then
        news=": step ${BASH_REMATCH[1]} of ${BASH_REMATCH[2]}"
    elif [[ $1 =~ ^[[:space:]]*(Collecting|Downloading|Unpacking|Setting up)" "([^ \(\;\=\<\>~]+) ]]; then
        news=${BASH_REMATCH[2]##*/}
        news=": ${news%%-[0-9]*}" # a file's name without its version
    fi
}

# Reads a command's output, keeps it in the log, and shows that work goes on: on a terminal one line, renewed
# every second; elsewhere a line every ten seconds.
watch() {
    local label=$1 line="" news="" began=$SECONDS shown_at=$SECONDS status
    while true; do
        status=0
        IFS= read -r -t 1 line || status=$?
        if ((status == 0)); then
            printf '%s\n' "$line" >>"$LOG"
            read_news "$line"
        elif ((status <= 128)); then # more than 128: the second ran out; else: the output ended
            return 0
        fi
        if [[ -t 1 ]] && ((SECONDS > shown_at)); then
            printf '\r\033[K  %s%s (%s)' "$label" "$news" "$(as_text $((SECONDS - began)))"
            shown_at=$SECONDS
        elif ((SECONDS >= shown_at + 10)); then
            say "  $label$news ($(as_text $((SECONDS - began))))"
            shown_at=$SECONDS
        fi
    done
}

# step LABEL COMMAND...: runs it with its progress in view; ends the set-up, with the reason, when it fails.
step() {
    local label=$1 began=$SECONDS log_before
    shift
    log_before=$(wc -l <"$LOG")
    printf '\n== %s\n' "$*" >>"$LOG"
    "$@" </dev/null 2>&1 | watch "$label" || explain_failure "$label" "$((log_before + 1))"
    if [[ -t 1 ]]; then printf '\r\033[K'; fi
    say "  $label: done in $(as_text $((SECONDS - began)))"
}

explain_failure() {
    local label=$1 output
    output=$(tail -n +"$2" "$LOG")
    said() { grep -qiE "$1" <<<"$output"; }
    if [[ -t 1 ]]; then printf '\r\033[K'; fi
    if said 'no space left on device|not enough free space|disk quota exceeded'; then
        fail "the disk is full: $ROOT has $(free_mb "$ROOT") MB left, ${TMPDIR:-/tmp} has $(free_mb "${TMPDIR:-/tmp}")"
    elif said 'temporary failure (in name resolution|resolving)|could not resolve|network is unreachable|failed to establish a new connection|could not connect to|connection timed out|readtimeouterror|name or service not known|proxyerror'; then
        fail "no network while '$label'; connect this machine, then run it again (details: $LOG)"
    elif said 'ssl: certificate_verify_failed|certificate verification failed'; then
        fail "a download's certificate is not trusted; check clock and proxy, then run it again (details: $LOG)"
    elif said 'killed signal terminated program|out of memory|cannot allocate memory'; then
        fail "out of memory while '$label'; close programs or add swap, then run it again (details: $LOG)"
    elif said 'could not get lock'; then
        fail "another program is installing Debian packages; wait for it, then run it again"
    elif said 'permission denied|are you root'; then
        fail "no permission while '$label'; was a part of $ROOT made by another user? (details: $LOG)"
    elif said 'unable to locate package|no installation candidate|failed to fetch'; then
        fail "Debian's packages cannot be fetched; check the network and apt's list of sources (details: $LOG)"
    fi
    tail -n 12 <<<"$output" >&2
    fail "'$label' did not work; the lines above are the end of $LOG"
}

free_mb() { df -Pm "$1" | awk 'NR == 2 {print $4}'; }

require_disk() {
    local folder=$1 needed=$2 free
    free=$(free_mb "$folder")
    ((free >= needed)) || fail "the disk is full: $folder has $free MB left, $needed MB are needed"
}

# ------------------------------------------------------------------------------ Debian's packages

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

missing_packages() {
    local python
    python=$(find_python)
    if [[ -z $python ]] && command -v python3 >/dev/null; then
        fail "Hunch needs Python 3.11 or newer, here is $(python3 --version); Debian 12 brings 3.11"
    fi
    if [[ -z $python ]] || ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then say python3-venv; fi
    if ! has_compiler; then say g++; fi
    if ! has_mosquitto; then say mosquitto; fi
    if ! has_mosquitto_clients; then say mosquitto-clients; fi
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

install_debian_packages() {
    local packages
    packages=$(missing_packages)
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
    packages=$(missing_packages)
    [[ -z $packages ]] || fail "Debian installed them, but their programs are missing: ${packages//$'\n'/, }"
}

# --------------------------------------------------------------------------------- Python's packages

make_venv() {
    if "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
    step "making .venv" "$(find_python)" -m venv --clear "$VENV"
}

pip() { "$VENV/bin/python" -m pip "$@" --disable-pip-version-check; }

num_compilers() {
    local by_memory
    by_memory=$(awk -v each="$MB_PER_COMPILER" '/^MemAvailable/ {print int($2 / 1024 / each)}' /proc/meminfo)
    ((by_memory >= 1)) || by_memory=1
    if ((by_memory < $(nproc))); then say "$by_memory"; else nproc; fi
}

# Builds the wheel into a cache of our own: pip's knows neither the processor nor the build settings.
build_llama() {
    local wheels=$1 partial=$1.partial
    require_disk "${TMPDIR:-/tmp}" "$COMPILE_MB"
    rm -rf "$partial"
    export CMAKE_ARGS="-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE='$ROOT/deploy/llama-build.cmake' $2"
    export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(num_compilers)}
    step "compiling llama.cpp for this processor, 2 to 10 minutes" \
        pip wheel -v --no-cache-dir --no-deps --no-binary llama-cpp-python \
        --build-constraint "$ROOT/constraints.txt" --wheel-dir "$partial" "llama-cpp-python==$(llama_version)"
    rm -rf "$wheels"
    mv "$partial" "$wheels"
}

install_llama() {
    local key=$1 cmake_args=$2 wheels=${XDG_CACHE_HOME:-${HOME:-$VENV}/.cache}/hunch/llama-cpp-python-$1
    [[ $(cat "$LLAMA_STAMP" 2>/dev/null) != "$key" ]] || return 0
    compgen -G "$wheels/*.whl" >/dev/null || (build_llama "$wheels" "$cmake_args")
    step "installing llama.cpp" pip install --no-deps --force-reinstall "$wheels"/*.whl
    say "$key" >"$LLAMA_STAMP"
}

install_python_packages() {
    local constraints=(--constraint "$ROOT/constraints.txt") key cmake_args
    key=$(llama_key)
    cmake_args=$(user_cmake_args)
    step "installing pip" pip install "${constraints[@]}" pip
    mkdir -p "${XDG_CACHE_HOME:-${HOME:-$VENV}/.cache}/hunch"
    install_llama "$key" "$cmake_args"
    step "installing Python packages" pip install "${constraints[@]}" \
        --build-constraint "$ROOT/constraints.txt" --editable "${ROOT}[dev]"
    say "$cmake_args" >"$CMAKE_ARGS_FILE"
}

check_imports() { "$VENV/bin/python" -c 'import llama_cpp, paho.mqtt.client, schemas, runtime'; }

main() {
    exec 9<"$ROOT" && flock 9 # two runs at once would trip over each other
    if is_ready; then return; fi
    { : >"$LOG"; } 2>/dev/null || fail "cannot write to $LOG; does it belong to another user?"
    [[ ! -e $VENV || -w $VENV ]] || fail "cannot write to $VENV; does it belong to another user?"
    say "Setting up Hunch in $ROOT (only the first time; details go to .setup.log)"
    require_disk "$ROOT" "$VENV_MB"
    install_debian_packages
    make_venv
    rm -f "$STAMP"
    install_python_packages
    step "trying what was installed" check_imports
    setup_key >"$STAMP"
    say "Set-up is complete after $(as_text "$SECONDS")."
}

main
