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

# A Sentinel refuses while it still ends the last failover, and when it has just lost sight of the replicas: it is asked again.
# Two at once would be two failovers, so whoever took it is waited for.
taken="" end=$(($(date +%s) + 10))
while [ "$(date +%s)" -lt "$end" ]; do
    if [ -n "$taken" ]; then
        names_me "$taken" || break
    else
        named=""
        for n in 0 1 2; do
            if names_me "$n"; then
                named="$n"
                [ "$(sentinel "$n" FAILOVER store)" != OK ] || { taken="$n" && break; }
            fi
        done
        [ -n "$named" ] || break
    fi
    sleep 0.2
done
