#!/bin/sh
# Before this server is stopped: if it is the primary, another takes over. Sales wait for that, and not for a loss to be noticed.
set -eu
: "${POD:?}" "${SERVERS:=rationd-redis}" "${SENTINELS:=rationd-sentinel}" "${SENTINEL_PORT:=26379}"

# Whether this Sentinel holds this server to be the primary. One that cannot be asked does not.
names_me() {
    [ "$(sentinel "$1" GET-MASTER-ADDR-BY-NAME store | head -n 1)" = "$POD.$SERVERS" ]
}

sentinel() {
    host="$SENTINELS-$1.$SENTINELS"
    shift
    timeout 2 redis-cli -h "$host" -p "$SENTINEL_PORT" SENTINEL "$@" 2>/dev/null || true
}

for n in 0 1 2; do
    if names_me "$n" && [ "$(sentinel "$n" FAILOVER store)" = OK ]; then
        tries=0
        while names_me "$n" && [ "$tries" -lt 50 ]; do
            tries=$((tries + 1))
            sleep 0.2
        done
        break
    fi
done
