#!/usr/bin/env bash
# Tries the installer for real, in a bare Debian 12 that debootstrap makes. In: root, a network, an empty folder.
# Out: a line for each thing that was seen to hold; ends with the first that does not.
# First in the bare tree, where no systemd runs; then booted with systemd-nspawn, so that the units' hardening
# is in force and real prompts are answered under it.
# usage: deploy/install/try.sh FOLDER [ARCH]    (debootstrap, systemd-container; for arm64 qemu-user-static)
# A folder with a tree that was made before is used again, for what takes longest in it.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TREE=${1:?usage: deploy/install/try.sh FOLDER [ARCH]}
ARCH=${2:-$(dpkg --print-architecture)}
INSTALL="nice deploy/install.sh"
DRAFT=deploy/demo/models/draft-q4_k_m.gguf
TARGET=deploy/demo/models/target-q8_0.gguf
BROKER_PORT=${BROKER_PORT:-18830} # a tree shares this machine's network, so two trials at once need two
BOARD="--broker mqtt://board-1@127.0.0.1:$BROKER_PORT --name board-1"
BROKER="/opt/hunch/worker/venv/bin/cloud-broker-worker broker"
FILES=/var/lib/hunch/broker/credentials
ASKER="-p $BROKER_PORT" # how Mosquitto's own clients get in
LISTENER=$ASKER
MACHINE=hunch-try
NSPAWN=""
LISTS=$(mktemp -d)

holds() { printf 'holds: %s\n' "$*"; }
breaks() {
    printf 'BREAKS: %s\n' "$*" >&2
    exit 1
}

make_tree() {
    [[ -e $TREE/etc/debian_version ]] && return
    debootstrap --arch="$ARCH" --variant=minbase bookworm "$TREE" >"$LISTS/debootstrap.log" 2>&1 ||
        breaks "debootstrap: $(tail -n 3 "$LISTS/debootstrap.log")"
}

# The network as this machine sees it, and the checkout as git sees it.
furnish() {
    local certificates=/etc/ssl/certs/ca-certificates.crt
    cp /etc/resolv.conf /etc/hosts "$TREE/etc/"
    cp -r /etc/apt/apt.conf.d/. "$TREE/etc/apt/apt.conf.d/"
    if [[ -e $certificates ]]; then
        cp "$certificates" "$TREE/etc/this-network.crt"
        printf '[global]\ncert = /etc/this-network.crt\n' >"$TREE/etc/pip.conf"
    fi
    rm -rf "$TREE/srv/hunch"
    mkdir -p "$TREE/srv/hunch"
    (cd "$ROOT" && git ls-files -z --cached --others --exclude-standard | tar -c --null -T -) |
        tar -x -C "$TREE/srv/hunch" --no-same-owner
}

# inside COMMAND: as root in the tree with an almost empty environment; in the booted system, once it is.
inside() {
    local clean=(env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8)
    if [[ -n $NSPAWN ]]; then
        "${clean[@]}" nsenter --target "$(init_process)" --all /bin/bash -c "cd /srv/hunch && $1" </dev/null
    else
        "${clean[@]}" chroot "$TREE" /bin/bash -c "cd /srv/hunch && $1" </dev/null
    fi
}

init_process() { ps --ppid "$NSPAWN" -o pid= | head -n 1 | tr -d ' '; }

# Every file with its rights, owner, time and checksum, but for what the package manager and systemd keep writing.
listing() {
    local outside=(\( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./var/log/journal
        -o -path ./var/lib/apt -o -path ./var/lib/systemd \) -prune -o)
    (
        cd "$TREE"
        find . "${outside[@]}" -type f -printf '%p %m %u:%g %T@\n' -o -printf '%p %y %m %u:%g %l\n' | sort
        find . "${outside[@]}" -type f -print0 | sort -z | xargs -0 sha256sum
    )
}

# twice_the_same OPTIONS: installs, and again; the second time nothing may differ.
twice_the_same() {
    inside "$INSTALL $*" || breaks "install $*"
    listing >"$LISTS/once"
    inside "$INSTALL $*" | tee "$LISTS/said" || breaks "install $* again"
    listing >"$LISTS/twice"
    diff "$LISTS/once" "$LISTS/twice" || breaks "the second run changed files"
    holds "install ${*:1:2} twice: $(wc -l <"$LISTS/twice") files and folders, and not one differs"
}

try_bare() {
    twice_the_same agent --model $DRAFT "$BOARD"
    inside "apt-get install -y -qq --no-install-recommends mosquitto mosquitto-clients procps >/dev/null 2>&1"
    start_broker
    # exec, or the pid would be that of a shell around it, and the agent would outlive what is killed.
    inside "{ exec setpriv --reuid hunch --regid hunch --init-groups /opt/hunch/agent/venv/bin/edge-agent run >/run/try-agent.log 2>&1; } & echo \$! >/run/try-agent.pid"
    ask && holds "the agent answers when the unit's command is run by hand as user hunch"
    inside "kill \$(cat /run/try-agent.pid); tail --pid=\$(cat /run/try-agent.pid) -f /dev/null"
    stop_broker
}

start_broker() {
    inside "printf 'listener $BROKER_PORT 127.0.0.1\nallow_anonymous true\n' >/run/try-mosquitto.conf
        mosquitto -c /run/try-mosquitto.conf >/run/try-mosquitto.log 2>&1 & echo \$! >/run/try-mosquitto.pid"
}

# A broker with TLS and a certificate for each, as docs/security.md has it; the worker brings the command.
start_tls_broker() {
    inside "$BROKER init --host 127.0.0.1 --port $BROKER_PORT && $BROKER add-agent board-1 && $BROKER add-worker cloud-1 &&
        $BROKER add-client asker && $BROKER add-client listener" >/dev/null
    inside "mosquitto -c /var/lib/hunch/broker/mosquitto/mosquitto.conf >/run/try-mosquitto.log 2>&1 & echo \$! >/run/try-mosquitto.pid"
    # Two of them: a name has one connection at a time, and the second would end the first.
    ASKER=$(login asker)
    LISTENER=$(login listener)
}

login() { printf -- "-h 127.0.0.1 -p $BROKER_PORT --cafile $FILES/%s.toml --cert $FILES/%s.toml --key $FILES/%s.toml" "$1" "$1" "$1"; }

stop_broker() { inside "kill \$(cat /run/try-mosquitto.pid)"; }

# Asks over MQTT until the agent is there, and prints its answer's last message. $1: a pattern that must be in it.
ask() {
    local try answer
    for try in {1..30}; do
        answer=$(inside "(sleep 0.5; mosquitto_pub -V 5 $ASKER -q 1 -t hunch/v1/agents/board-1/prompt \
            -m '{\"id\": \"q$try\", \"text\": \"I need a table for two in Oakland.\", \"max_tokens\": 24}') &
            timeout 10 mosquitto_sub -V 5 $LISTENER -t hunch/v1/agents/board-1/completion/q$try" | grep finish_reason || true)
        if [[ $answer =~ ${1:-finish_reason} ]]; then
            printf '%s\n' "$answer"
            return
        fi
    done
    breaks "no answer with '${1:-finish_reason}', the last one: $answer"
}

boot() {
    inside "apt-get install -y -qq --no-install-recommends systemd-sysv dbus >/dev/null 2>&1"
    inside "systemctl -q disable mosquitto 2>/dev/null" || true
    systemd-nspawn --directory="$TREE" --boot --register=no --keep-unit --machine=$MACHINE --console=pipe \
        </dev/null >"$LISTS/nspawn.log" 2>&1 &
    NSPAWN=$!
    until inside "systemctl is-system-running 2>/dev/null | grep -E 'running|degraded'" 2>/dev/null; do
        kill -0 "$NSPAWN" || breaks "systemd-nspawn: $(cat "$LISTS/nspawn.log")"
        sleep 0.5
    done
}

power_off() {
    [[ -n $NSPAWN ]] || return 0
    inside "systemctl poweroff" 2>/dev/null || true
    wait "$NSPAWN" 2>/dev/null || true
    NSPAWN=""
}

main_process() { inside "systemctl show --property MainPID --value $1"; }

# The hardening that the kernel says is in force for a process.
show_confinement() {
    local process folder role=${1#hunch-}
    role=${role%.service}
    process=$(main_process "$1")
    inside "grep -E '^(Uid|NoNewPrivs|Seccomp|CapBnd|CapEff):' /proc/$process/status | tr -s '\t\n' ' '"
    inside "grep -q '^CapBnd:.*0000000000000000' /proc/$process/status && grep -q '^Seccomp:.*2' /proc/$process/status" ||
        breaks "$1 runs with capabilities or without a filter of system calls"
    for folder in /opt /etc /usr /var/lib/hunch/models; do # as root, since its user may not anyway
        ! inside "nsenter --target $process --mount touch $folder/x 2>/dev/null" || breaks "$1 could write $folder"
    done
    inside "nsenter --target $process --mount sh -c 'touch /var/lib/hunch/$role/x && rm /var/lib/hunch/$role/x'" ||
        breaks "$1 cannot write its own folder"
    inside "systemd-analyze verify /etc/systemd/system/$1 && systemd-analyze security --no-pager $1 | tail -n 1"
    holds "$1 runs confined"
}

try_booted() {
    local before
    boot
    twice_the_same worker --model $TARGET
    start_tls_broker
    twice_the_same worker --credentials $FILES/cloud-1.toml
    twice_the_same agent --credentials $FILES/board-1.toml
    ! inside "$INSTALL agent --credentials $FILES/cloud-1.toml" || breaks "the agent took a worker's credentials"
    before=$(main_process hunch-agent.service)
    inside "$INSTALL agent" >/dev/null
    [[ $(main_process hunch-agent.service) == "$before" ]] || breaks "a run without changes restarted the agent"
    holds "a run without changes leaves the process alone"
    ask '"(accepted|recovered)":[1-9]'
    holds "agent and worker answer under the hardening of their units"
    show_confinement hunch-agent.service
    show_confinement hunch-worker.service
    try_ban_on_making_code
    try_faults
    try_upgrades
    try_removal
    stop_broker
    power_off
}

# That the units' ban on memory that is written and run means something here: what it forbids works without it.
try_ban_on_making_code() {
    local code="import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)"
    local run="systemd-run --quiet --wait --pipe"
    inside "$run python3 -c '$code'" || breaks "memory to be written and run is not to be had at all"
    ! inside "$run -p MemoryDenyWriteExecute=yes python3 -c '$code' 2>/dev/null" ||
        breaks "the ban on memory to be written and run is not in force here"
    holds "the ban on memory that is both written and run is in force"
}

try_faults() {
    local before
    before=$(main_process hunch-agent.service)
    inside "kill -9 $before; until systemctl -q is-active hunch-agent && [[ \$(systemctl show -p MainPID --value hunch-agent) != $before ]]; do sleep 1; done"
    ask
    holds "a killed agent is back"
    inside "cp -p /etc/hunch/agent.toml /run/try-agent.toml; echo 'risk = 7' >>/etc/hunch/agent.toml; systemctl restart hunch-agent
        until systemctl -q is-failed hunch-agent; do sleep 1; done; journalctl -u hunch-agent -o cat -n 20 | grep risk | tail -n 1
        systemctl show -p ExecMainStatus hunch-agent"
    holds "settings that cannot work end it for good, with one line in the journal"
    ! inside "$INSTALL agent" || breaks "the installer took settings that cannot work"
    inside "cp -p /run/try-agent.toml /etc/hunch/agent.toml"
    before=$(inside "readlink /opt/hunch/agent/venv")
    ! inside "$INSTALL agent --model README.md" || breaks "the installer took a text for a model"
    ! inside "$INSTALL agent --model $DRAFT --sha256 $(printf '%064d' 0)" || breaks "the installer took a wrong checksum"
    [[ $before == "$(inside "readlink /opt/hunch/agent/venv")" ]] || breaks "a failed run changed the release"
    inside "$INSTALL agent" >/dev/null
    ask
    holds "what is no model, and a wrong checksum, are refused and change nothing"
}

# Broken on purpose: it passes its check and then dies, so that only the service shows it.
try_upgrades() {
    local before
    before=$(inside "readlink /opt/hunch/agent/venv")
    inside "sed -i 's/^version = .*/version = \"9.9.9\"/' pyproject.toml; cp -p edge_agent/service.py /run/try-service.py
        sed -i 's/^class Service:/raise SystemExit(\"broken on purpose\")\n\n\nclass Service:/' edge_agent/service.py
        sed -i 's/^from edge_agent.service import Service$/import sys\nif \"--check\" not in sys.argv and \"--version\" not in sys.argv:\n    from edge_agent.service import Service/' edge_agent/cli.py"
    ! inside "$INSTALL agent" 2>"$LISTS/said" || breaks "a broken upgrade was taken for a good one"
    grep "broken on purpose" "$LISTS/said" || breaks "the reason was not said: $(cat "$LISTS/said")"
    [[ $before == "$(inside "readlink /opt/hunch/agent/venv")" ]] || breaks "a broken upgrade stayed"
    ask
    holds "after a broken upgrade the old release is in use again, and answers"
    inside "cp -p /run/try-service.py edge_agent/service.py"
    inside "$INSTALL agent"
    inside "/opt/hunch/agent/venv/bin/edge-agent --version; ls /opt/hunch/agent"
    ask
    holds "an upgrade comes into use, and the old release is gone"
}

try_removal() {
    inside "$INSTALL agent --uninstall"
    inside "ls /etc/hunch/agent.toml /var/lib/hunch/models/*.gguf && ! ls /opt/hunch/agent 2>/dev/null && ! systemctl cat hunch-agent 2>/dev/null"
    ask_nobody
    inside "systemctl is-active hunch-worker"
    holds "the agent is gone, its settings and models are kept, and the worker goes on"
    inside "$INSTALL agent"
    ask
    holds "installed again, it finds settings and model"
    inside "$INSTALL agent --uninstall --purge && $INSTALL worker --uninstall --purge"
    inside "ls /var/lib/hunch | grep -qx broker && rm -r /var/lib/hunch/broker && rmdir /var/lib/hunch" ||
        breaks "after --purge there is not just the broker's folder in /var/lib/hunch"
    inside "! ls -d /etc/hunch /opt/hunch /var/cache/hunch /etc/systemd/system/*hunch* /var/log/hunch* 2>/dev/null && ! id hunch 2>/dev/null" ||
        breaks "something is left after --purge"
    holds "after --purge nothing is left but the broker's folder"
}

ask_nobody() { inside "! systemctl -q is-active hunch-agent"; }

clean_up() {
    if [[ -n $NSPAWN ]]; then kill -KILL "$(init_process)" || true; fi
    umount "$TREE/proc" 2>/dev/null || true
    rm -rf "$LISTS"
}

main() {
    ((EUID == 0)) || breaks "this must run as root"
    trap clean_up EXIT
    make_tree
    furnish
    mkdir -p "$TREE/proc"
    mount -t proc proc "$TREE/proc"
    try_bare
    umount "$TREE/proc"
    [[ $ARCH == "$(dpkg --print-architecture)" ]] || exit 0 # systemd under emulation is not tried
    try_booted
}

main
