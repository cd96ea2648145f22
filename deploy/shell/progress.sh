# shellcheck shell=bash
# What the set-up and the installer tell a person: each step's progress, and why one failed. To be sourced.
# In: TASK ("set-up"), LOG (where all output goes), PLACE (the folder that fills the disk).

say() { printf '%s\n' "$*"; }
fail() {
    printf '\n%s failed: %s\n' "$TASK" "$*" >&2
    exit 1
}

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

# step LABEL COMMAND...: runs it with its progress in view; ends the program, with the reason, when it fails.
step() {
    local label=$1 began=$SECONDS log_before
    shift
    log_before=$(wc -l 2>/dev/null <"$LOG" || say 0)
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
        fail "the disk is full: $PLACE has $(free_mb "$PLACE") MB left, ${TMPDIR:-/tmp} has $(free_mb "${TMPDIR:-/tmp}")"
    elif said 'temporary failure (in name resolution|resolving)|could not resolve|network is unreachable|failed to establish a new connection|could not connect to|connection timed out|readtimeouterror|name or service not known|proxyerror'; then
        fail "no network while '$label'; connect this machine, then run it again (details: $LOG)"
    elif said 'ssl: certificate_verify_failed|certificate verification failed'; then
        fail "a download's certificate is not trusted; check clock and proxy, then run it again (details: $LOG)"
    elif said 'killed signal terminated program|out of memory|cannot allocate memory'; then
        fail "out of memory while '$label'; close programs or add swap, then run it again (details: $LOG)"
    elif said 'could not get lock'; then
        fail "another program is installing Debian packages; wait for it, then run it again"
    elif said 'permission denied|are you root'; then
        fail "no permission while '$label'; was a part of $PLACE made by another user? (details: $LOG)"
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
