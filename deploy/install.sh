#!/usr/bin/env bash
# Installs Hunch as a service: the agent of a board, or a worker. In: Raspberry Pi OS or Debian 12, 64 bits, root.
# Out: user hunch, /opt/hunch, /etc/hunch, /var/lib/hunch, a systemd unit that runs. Docs: docs/install.md.
# Run again, it upgrades to this checkout; where there is nothing to upgrade, it changes nothing.
# Exit codes: 0 done; 1 something failed, and what ran before goes on running; 2 wrong arguments.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TASK=installation
LOG=/var/log/hunch-install.log
HUNCH_USER=hunch
SETTINGS=/etc/hunch
STATE=/var/lib/hunch
MODELS=$STATE/models
CACHE=/var/cache/hunch # wheels of llama.cpp, which take minutes to compile
UNITS=/etc/systemd/system
# What was asked for
ROLE="" MODEL="" SHA256="" CREDENTIALS="" BROKER="" NAME="" VERB=install PURGE=false
# What has come of it so far: the release, whether it is not yet in use, whether settings have changed
RELEASE="" IS_NEW=false IS_CHANGED=false BACKUP=""

# shellcheck source=deploy/shell/progress.sh
. "$ROOT/deploy/shell/progress.sh"
# shellcheck source=deploy/shell/debian.sh
. "$ROOT/deploy/shell/debian.sh"
# shellcheck source=deploy/shell/llama.sh
. "$ROOT/deploy/shell/llama.sh"
# shellcheck source=deploy/install/release.sh
. "$ROOT/deploy/install/release.sh"
# shellcheck source=deploy/install/settings.sh
. "$ROOT/deploy/install/settings.sh"
# shellcheck source=deploy/install/service.sh
. "$ROOT/deploy/install/service.sh"
# shellcheck source=deploy/install/uninstall.sh
. "$ROOT/deploy/install/uninstall.sh"

usage() {
    cat <<'END'
usage: sudo deploy/install.sh agent|worker [options]

Installs Hunch as a service, or upgrades it to this checkout; run twice, it changes nothing.

  --model SOURCE       GGUF file: a path, https://… (with --sha256), hf:OWNER/NAME/FILE.gguf or hf:OWNER/NAME:PATTERN
  --sha256 CHECKSUM    what the model's SHA-256 must be
  --credentials FILE   the file that `cloud-broker-worker broker add-agent` or `add-worker` made
  --broker URL         without credentials: the MQTT broker, such as mqtt://board-7@broker.example:1883
  --name NAME          without credentials: the name in topics; by default the host name
  --uninstall          remove program and service; settings and models stay
  --purge              with --uninstall: remove settings, credentials, models and the user, too
  --help               this text

The first time, --model is needed. Later on, what is not given stays as it is.
END
}

wrong() {
    printf 'install.sh: %s; --help lists what there is\n' "$*" >&2
    exit 2
}

read_arguments() {
    while (($# > 0)); do
        case $1 in
        agent | worker)
            [[ -z $ROLE ]] || wrong "one of agent and worker at a time"
            ROLE=$1
            ;;
        --model | --sha256 | --credentials | --broker | --name)
            [[ -n ${2:-} && $2 != --* ]] || wrong "$1 needs a value"
            local variable=${1#--}
            printf -v "${variable^^}" '%s' "$2"
            shift
            ;;
        --uninstall) VERB=uninstall ;;
        --purge) PURGE=true ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) wrong "there is no option or role $1" ;;
        esac
        shift
    done
    [[ -n $ROLE ]] || wrong "say what to install: agent or worker"
    [[ $VERB == uninstall || $PURGE == false ]] || wrong "--purge goes with --uninstall"
    [[ -z $SHA256 || -n $MODEL ]] || wrong "--sha256 goes with --model"
    [[ -z $CREDENTIALS || -z $BROKER$NAME ]] || wrong "credentials bring broker and name; leave --broker and --name out"
}

set_role() {
    case $ROLE in
    agent) PROGRAM=edge-agent ;;
    worker) PROGRAM=cloud-broker-worker ;;
    esac
    UNIT=hunch-$ROLE.service
    PLACE=/opt/hunch/$ROLE
    CURRENT=$PLACE/venv # a link to the release in use
    CONFIG=$SETTINGS/$ROLE.toml
    CREDENTIALS_FILE=$SETTINGS/$ROLE-credentials.toml
}

require_system() {
    ((EUID == 0)) || fail "this must run as root: sudo deploy/install.sh $ROLE …"
    command -v apt-get >/dev/null || fail "this is made for Debian 12 and Raspberry Pi OS; here is no apt-get"
    case $(dpkg --print-architecture) in
    amd64 | arm64) ;;
    *) fail "a 64-bit system is needed (amd64 or arm64), here is $(dpkg --print-architecture); choose the 64-bit Raspberry Pi OS" ;;
    esac
    [[ $VERB == uninstall || -n $MODEL || -e $CONFIG ]] || fail "give the model: --model PATH, URL or hf:OWNER/NAME/FILE.gguf"
}

missing_packages() {
    missing_for_python
    # Without the certificates of the web's authorities no model comes over https.
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || say ca-certificates
}

make_user() {
    if id -u "$HUNCH_USER" >/dev/null 2>&1; then
        say "  user $HUNCH_USER: is there"
        return
    fi
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin \
        --comment "Hunch" "$HUNCH_USER"
    say "  user $HUNCH_USER: made"
}

install_hunch() {
    say "Installing the $ROLE of Hunch $(hunch_version)"
    install_debian_packages missing_packages
    make_user
    make_release
    keep_settings
    fetch_model
    take_credentials
    write_settings
    check_settings
    start_release
    say "The $ROLE is installed. Settings: $CONFIG. Log: journalctl -u hunch-$ROLE"
}

main() {
    read_arguments "$@"
    set_role
    require_system
    exec 9</ && flock 9 # two runs at once would trip over each other
    umask 022
    if [[ $VERB == uninstall ]]; then uninstall; else install_hunch; fi
}

main "$@"
