# shellcheck shell=bash
# A release: an environment of Python with this checkout's Hunch in it, beside the one in use. To be sourced.
# It is whole once it holds `hunch-release`, whose text is the key of all that went into it.

RELEASE_MB=300 # measured: 187 to 204 for the environment, 15 for the wheel of llama.cpp, and some slack

hunch_version() { sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/pyproject.toml"; }

# Everything that the wheel is made of.
sources() {
    (cd "$ROOT" && find schemas runtime edge_agent cloud_broker_worker pyproject.toml README.md LICENSE \
        -type f ! -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z)
}

# A board has no use for more than the core, but for metrics where its settings ask for them; a model hub's client comes
# with the first model that needs it.
extras() {
    local wanted=()
    if [[ $ROLE == worker ]]; then wanted+=(broker metrics); fi
    if [[ $ROLE == agent ]] && grep -qs '^metrics_address' /etc/hunch/agent.toml; then wanted+=(metrics); fi
    if [[ $MODEL == hf:* || $(cat "$CURRENT/hunch-extras" 2>/dev/null) == *hub* ]]; then wanted+=(hub); fi
    local IFS=,
    say "${wanted[*]}"
}

release_key() {
    {
        say "$ROLE $(extras)"
        readlink -f "$(find_python)"
        llama_key
        (cd "$ROOT" && sources | xargs -0 sha256sum && sha256sum constraints.txt)
    } | short_hash
}

# Sets RELEASE (the folder) and IS_NEW.
make_release() {
    local key
    VENV=$CURRENT # what was asked of CMake is remembered there
    key=$(release_key)
    if [[ $(cat "$CURRENT/hunch-release" 2>/dev/null) == "$key" ]]; then
        RELEASE=$(readlink -f "$CURRENT") IS_NEW=false
        say "  program: is there"
        return
    fi
    RELEASE=$PLACE/venv-$(hunch_version)-$key IS_NEW=true
    mkdir -p "$PLACE"
    require_disk "$PLACE" "$RELEASE_MB"
    # An earlier run may have got so far and then failed over something else.
    [[ $(cat "$RELEASE/hunch-release" 2>/dev/null) == "$key" ]] || fill_release "$key"
}

fill_release() {
    local constraints=(--constraint "$ROOT/constraints.txt") wanted cmake_args
    wanted=$(extras)
    cmake_args=$(user_cmake_args)
    export PIP_NO_CACHE_DIR=1 # what is kept of a board's disk is kept for models
    rm -rf "$RELEASE"
    step "making the environment" "$(find_python)" -m venv "$RELEASE"
    VENV=$RELEASE
    say "$cmake_args" >"$VENV/cmake-args"
    say "$wanted" >"$VENV/hunch-extras"
    step "installing pip" pip install "${constraints[@]}" pip
    install_llama "$CACHE"
    step "installing Hunch and the packages it needs" install_from_checkout "${wanted:+[$wanted]}"
    step "trying what was installed" "$VENV/bin/$PROGRAM" --version
    say "$1" >"$VENV/hunch-release"
}

# From a copy: setuptools leaves files in the folder that it builds in, and this checkout belongs to someone else.
install_from_checkout() {
    local copy
    copy=$(mktemp -d)
    (cd "$ROOT" && sources | xargs -0 cp --parents -t "$copy")
    pip install --constraint "$ROOT/constraints.txt" --build-constraint "$ROOT/constraints.txt" "hunch$1 @ file://$copy" &&
        rm -rf "$copy"
}

# Everything that the service does is done as its user. The model's file may lie where only root can read.
as_hunch() {
    local caps=-all
    if [[ $1 == --reading-all ]]; then
        caps=-all,+dac_read_search
        shift
    fi
    HOME=$STATE/$ROLE HF_HOME=$MODELS/.hub-home setpriv --reuid "$HUNCH_USER" --regid "$HUNCH_USER" --init-groups \
        --no-new-privs --inh-caps "$caps" --ambient-caps "$caps" --bounding-set "$caps" -- "$@"
}
