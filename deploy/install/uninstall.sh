# shellcheck shell=bash
# What was installed goes; what was said and fetched stays, unless it is purged. To be sourced.

other_role() { if [[ $ROLE == agent ]]; then say worker; else say agent; fi; }

has_other_role() { [[ -e /opt/hunch/$(other_role) || -e $SETTINGS/$(other_role).toml ]]; }

uninstall() {
    say "Removing the $ROLE of Hunch"
    if systemd_runs && [[ -e $UNITS/$UNIT ]]; then systemctl --quiet disable --now "$UNIT"; fi
    rm -f "$UNITS/$UNIT" "$UNITS/multi-user.target.wants/$UNIT"
    if systemd_runs; then systemctl daemon-reload; fi
    rm -rf "$PLACE"
    has_other_role || rm -rf "$CACHE"
    remove_if_empty /opt/hunch
    if $PURGE; then
        purge
    else
        say "  kept: what is in $SETTINGS and $STATE, and the user $HUNCH_USER (--purge removes them)"
    fi
    say "The $ROLE is removed."
}

# Only what the installer or the service made: a broker's folder may lie beside.
purge() {
    rm -f "$CONFIG" "$CREDENTIALS_FILE"
    rm -rf "${STATE:?}/$ROLE"
    remove_if_empty "$SETTINGS"
    if has_other_role; then
        say "  kept: models and user, which the $(other_role) needs"
    else
        rm -rf "$MODELS"
        rm -f "$LOG"
        if id -u "$HUNCH_USER" >/dev/null 2>&1; then userdel "$HUNCH_USER"; fi
    fi
    remove_if_empty "$STATE"
}

remove_if_empty() { if [[ -d $1 ]]; then rmdir --ignore-fail-on-non-empty "$1"; fi; }
