# shellcheck shell=bash
# The service: a release comes into use, or the one before stays. To be sourced.

LAST_WORDS="systemd could not start it"
UP_S=5 # a service that has lasted so long after `run --check` has passed is taken to run

systemd_runs() { [[ -d /run/systemd/system ]]; }

has_unit() { cmp -s "$ROOT/deploy/systemd/$UNIT" "$UNITS/$UNIT"; }

# Point the link at a release, in one move.
use_release() {
    ln -sfn "${1##*/}" "$CURRENT.new"
    mv -T "$CURRENT.new" "$CURRENT"
}

start_release() {
    local before=""
    if ! $IS_NEW && ! $IS_CHANGED && has_unit; then
        say "  service: nothing to change"
        ensure_running
        return
    fi
    if [[ -e $CURRENT/hunch-release ]]; then before=$(readlink -f "$CURRENT"); fi
    use_release "$RELEASE"
    has_unit || install -D -m 0644 "$ROOT/deploy/systemd/$UNIT" "$UNITS/$UNIT"
    if ! restart; then
        take_back "$before"
        fail "the $ROLE does not stay up; its last words: $LAST_WORDS"
    fi
    remove_old_releases
}

restart() {
    if ! systemd_runs; then
        say "  service: systemd does not run here, so nothing is started; later: systemctl enable --now $UNIT"
        return 0
    fi
    systemctl daemon-reload
    systemctl --quiet enable "$UNIT"
    systemctl restart "$UNIT" && stays_up && say "  service: runs"
}

ensure_running() {
    systemd_runs || return 0
    systemctl --quiet is-enabled "$UNIT" || systemctl --quiet enable "$UNIT"
    systemctl --quiet is-active "$UNIT" || restart || fail "the $ROLE does not stay up; its last words: $LAST_WORDS"
}

main_process() { systemctl show --property MainPID --value "$UNIT"; }

# Sets LAST_WORDS where it does not.
stays_up() {
    local process second
    process=$(main_process)
    for ((second = 0; second < UP_S; second++)); do
        sleep 1
        if ! systemctl --quiet is-active "$UNIT" || [[ $(main_process) != "$process" ]]; then
            LAST_WORDS=$(journalctl --identifier "hunch-$ROLE" --lines 1 --output cat --no-pager "_PID=$process" || true)
            LAST_WORDS="${LAST_WORDS:-none} (exit code $(systemctl show --property ExecMainStatus --value "$UNIT"))"
            return 1
        fi
    done
}

# Back to the release, the settings and the unit from before; with none before, nothing is left to start.
take_back() {
    if [[ -z $1 ]]; then
        systemctl --quiet disable --now "$UNIT" || true
        rm -f "$CURRENT"
    else
        use_release "$1"
    fi
    put_back
    systemctl daemon-reload
    if [[ -n $1 ]]; then
        systemctl restart "$UNIT" || true
        say "  service: the release from before is in use again"
    fi
    if $IS_NEW; then rm -rf "$RELEASE"; fi
}

remove_old_releases() {
    local release
    for release in "$PLACE"/venv-*; do
        [[ $release == "$RELEASE" ]] || rm -rf "$release"
    done
}
