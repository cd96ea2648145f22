#!/bin/sh
# Sets up the broker of deploy/compose.yaml, once, and gives each member its own credentials in its own volume.
# In: the names under which the broker is reached. Out: a broker's folder, and one file a member. A second run
# changes nothing.
set -eu

hosts=""
for host in "$@"; do hosts="$hosts --host $host"; done
# shellcheck disable=SC2086 # a list of words
cloud-broker-worker broker init $hosts

for role in worker agent client; do
    file=/credentials/$role/credentials.toml
    [ -e "$file" ] && continue
    made=/var/lib/hunch/broker/credentials/$role.toml
    # Made by a run that was cut off before it was carried.
    [ -e "$made" ] || cloud-broker-worker broker "add-$role" "$role"
    cp -p "$made" "$file.partial"
    mv "$file.partial" "$file"
    rm "$made"
done
