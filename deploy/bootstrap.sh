#!/usr/bin/env bash
# Makes this checkout ready to run. In: a Debian 12 machine (or a relative) with a network, root or sudo.
# Out: Mosquitto and a compiler from Debian where they are missing, and .venv with all that Hunch needs.
# Once that is done, running it again takes a moment, prints nothing and changes nothing.
# Exit codes: 0 ready; 1 something is missing that it could not bring: the last line says what, and the mend.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TASK=set-up
VENV=$ROOT/.venv
PLACE=$ROOT
LOG=$ROOT/.setup.log
STAMP=$VENV/hunch-setup # the key of the set-up that was completed
VENV_MB=1200            # measured: 430 for .venv, 450 for compiler and broker, and some slack

# shellcheck source=deploy/shell/progress.sh
. "$ROOT/deploy/shell/progress.sh"
# shellcheck source=deploy/shell/debian.sh
. "$ROOT/deploy/shell/debian.sh"
# shellcheck source=deploy/shell/llama.sh
. "$ROOT/deploy/shell/llama.sh"

setup_key() {
    { say "$ROOT"; llama_key; cat "$ROOT"/{pyproject.toml,constraints.txt,deploy/bootstrap.sh} "$ROOT"/deploy/shell/*.sh; } |
        short_hash
}

missing_packages() {
    missing_for_python
    if ! has_mosquitto; then say mosquitto; fi
    if ! has_mosquitto_clients; then say mosquitto-clients; fi
}

is_ready() {
    [[ -x $VENV/bin/python && -r $STAMP && $(<"$STAMP") == "$(setup_key)" ]] && has_mosquitto && has_mosquitto_clients
}

make_venv() {
    if "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
    step "making .venv" "$(find_python)" -m venv --clear "$VENV"
}

install_python_packages() {
    local constraints=(--constraint "$ROOT/constraints.txt")
    step "installing pip" pip install "${constraints[@]}" pip
    install_llama "${XDG_CACHE_HOME:-${HOME:-$VENV}/.cache}/hunch"
    step "installing Python packages" pip install "${constraints[@]}" \
        --build-constraint "$ROOT/constraints.txt" --editable "${ROOT}[dev]"
}

check_imports() { "$VENV/bin/python" -c 'import llama_cpp, paho.mqtt.client, schemas, runtime'; }

main() {
    exec 9<"$ROOT" && flock 9 # two runs at once would trip over each other
    if is_ready; then return; fi
    { : >"$LOG"; } 2>/dev/null || fail "cannot write to $LOG; does it belong to another user?"
    [[ ! -e $VENV || -w $VENV ]] || fail "cannot write to $VENV; does it belong to another user?"
    say "Setting up Hunch in $ROOT (only the first time; details go to .setup.log)"
    require_disk "$ROOT" "$VENV_MB"
    install_debian_packages missing_packages
    make_venv
    rm -f "$STAMP"
    install_python_packages
    step "trying what was installed" check_imports
    setup_key >"$STAMP"
    say "Set-up is complete after $(as_text "$SECONDS")."
}

main
