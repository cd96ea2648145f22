# shellcheck shell=bash
# The model, the credentials and the settings. To be sourced.
# What stands in a file of settings and is not asked to change stays, comments and all.

# Sets MODEL_FILE, where a model was given.
fetch_model() {
    MODEL_FILE=""
    [[ -n $MODEL ]] || return 0
    # The service only reads models (ReadOnlyPaths= in its unit); its user owns them so that fetching needs no root.
    install -d -m 0755 "$STATE"
    install -d -m 0755 -o "$HUNCH_USER" -g "$HUNCH_USER" "$MODELS"
    if [[ -e $MODEL ]]; then MODEL=$(realpath "$MODEL"); fi
    MODEL_FILE=$(as_hunch --reading-all "$RELEASE/bin/$PROGRAM" fetch-model "$MODEL" --to "$MODELS" \
        ${SHA256:+--sha256 "$SHA256"}) || give_up "the model cannot be used; the line above says why"
    rm -rf "$MODELS/.hub-home"
    say "  model: $MODEL_FILE"
}

# What stands in files before anything is changed, to be put back if it comes to nothing.
keep_settings() {
    local file
    BACKUP=$(mktemp -d)
    trap 'rm -rf "$BACKUP"' EXIT
    for file in "$CONFIG" "$CREDENTIALS_FILE" "$UNITS/$UNIT"; do
        if [[ -e $file ]]; then cp -p "$file" "$BACKUP/"; fi
    done
}

put_back() {
    local file kept
    for file in "$CONFIG" "$CREDENTIALS_FILE" "$UNITS/$UNIT"; do
        kept=$BACKUP/${file##*/}
        if [[ ! -e $kept ]]; then
            rm -f "$file"
        elif ! cmp -s "$kept" "$file"; then
            cp -p "$kept" "$file"
        fi
    done
}

# Nothing came into use: settings are as they were, and the release that was made for this is of no use.
give_up() {
    put_back
    if $IS_NEW; then rm -rf "$RELEASE"; fi
    fail "$*"
}

take_credentials() {
    [[ -n $CREDENTIALS ]] || return 0
    [[ -f $CREDENTIALS ]] || give_up "there is no file $CREDENTIALS"
    install -d -m 0750 -g "$HUNCH_USER" "$SETTINGS"
    if cmp -s "$CREDENTIALS" "$CREDENTIALS_FILE"; then
        say "  credentials: are there"
        return
    fi
    local said
    said=$(read_role 2>&1) || give_up "$said"
    [[ $said == "$ROLE" ]] || give_up "$CREDENTIALS is for the role $said; give one for the $ROLE"
    install -m 0640 -g "$HUNCH_USER" "$CREDENTIALS" "$CREDENTIALS_FILE"
    IS_CHANGED=true
    say "  credentials: $CREDENTIALS_FILE"
}

read_role() {
    "$RELEASE/bin/python" - "$CREDENTIALS" <<'END'
import sys
from pathlib import Path

from runtime.credentials import read_credentials
from schemas.errors import ConfigurationError

try:
    print(read_credentials(Path(sys.argv[1])).role)
except ConfigurationError as error:
    sys.exit(str(error))
END
}

write_settings() {
    local before
    install -d -m 0750 -g "$HUNCH_USER" "$SETTINGS"
    if [[ ! -e $CONFIG ]]; then
        install -m 0640 -g "$HUNCH_USER" "$ROOT/deploy/install/$ROLE.toml" "$CONFIG"
        IS_CHANGED=true
    fi
    before=$(sha256sum <"$CONFIG")
    if [[ -n $MODEL_FILE ]]; then set_line model "$MODEL_FILE"; fi
    # What stands in the file outweighs what the credentials say, so one of the two goes.
    if [[ -n $CREDENTIALS ]]; then
        set_line credentials "$CREDENTIALS_FILE"
        unset_lines broker name username password ca_file cert_file key_file
    elif [[ -n $BROKER ]]; then
        unset_lines credentials
    fi
    if [[ -n $BROKER ]]; then set_line broker "$BROKER"; fi
    if [[ -n $NAME ]]; then set_line name "$NAME"; fi
    if [[ $before != "$(sha256sum <"$CONFIG")" ]]; then IS_CHANGED=true; fi
    if $IS_CHANGED; then say "  settings: $CONFIG"; else say "  settings: are there"; fi
}

# set_line NAME TEXT: puts the setting in the place of the line that sets it, or else of the first that shows it as
# a comment, or else at the top.
set_line() {
    local name=$1 line number
    [[ $2 != *[\"\\]* && $2 != *[[:cntrl:]]* ]] || give_up "$name must not hold quotes, backslashes or line ends: $2"
    line="$name = \"$2\""
    number=$(grep -n -m1 -E "^$name *=" "$CONFIG" || grep -n -m1 -E "^# *$name *=" "$CONFIG" || true)
    number=${number%%:*}
    {
        if [[ -z $number ]]; then
            say "$line"
            cat "$CONFIG"
        else
            head -n $((number - 1)) "$CONFIG"
            say "$line"
            tail -n +$((number + 1)) "$CONFIG"
        fi
    } | renew_settings
}

# unset_lines NAME...: makes comments of the lines that set these.
unset_lines() {
    local names
    names=$(printf '|%s' "$@")
    sed -E "s/^(${names#|}) *=/# &/" "$CONFIG" | renew_settings
}

# Puts what comes in into the place of the file, whole or not at all, where it differs.
renew_settings() {
    local text partial=$CONFIG.partial
    text=$(cat && printf .) # the shell cuts line ends off
    if [[ $text == "$(cat "$CONFIG" && printf .)" ]]; then return; fi
    install -m 0640 -g "$HUNCH_USER" /dev/null "$partial"
    printf '%s' "${text%.}" >"$partial"
    mv "$partial" "$CONFIG"
}

# The program itself says whether it could run with them: it reads all files and loads the model.
check_settings() {
    local said
    said=$(as_hunch "$RELEASE/bin/$PROGRAM" run --check 2>&1) || give_up "$said"
    say "  check: $said"
}
