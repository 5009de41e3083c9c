#!/bin/sh
# Starts a server of the ledger as what the Sentinels say it is, and never as a primary of its own accord.
#
# POD: the name of this pod. SERVERS, SENTINELS: the Services that give pods their names.
set -eu
: "${POD:?}" "${SERVERS:=rationd-redis}" "${SENTINELS:=rationd-sentinel}"
: "${PORT:=6379}" "${SENTINEL_PORT:=26379}" "${CONFIG:=/etc/redis}" "${DATA:=/data}"
me="$POD.$SERVERS"

# A line for each Sentinel that answers: the epoch of its view, the primary, and how many replicas it knows.
views() {
    for n in 0 1 2; do
        timeout 2 redis-cli -h "$SENTINELS-$n.$SENTINELS" -p "$SENTINEL_PORT" SENTINEL MASTER store 2>/dev/null |
            awk 'NR % 2 { field = $0; next } { is[field] = $0 }
                 END { if (is["ip"] != "") print is["config-epoch"], is["ip"], is["num-slaves"] }'
    done
}

# Two of the three are enough to know, but the third may be the only one that has heard of the latest failover: it is waited for.
# After all servers were gone, so is the primary: of replicas that have just begun nobody knows which has more.
tries=0 waited=0
while :; do
    seen="$(views | sort -n)"
    answers="$(printf '%s' "$seen" | grep -c .)" || true
    if [ "$answers" -eq 3 ] || { [ "$answers" -eq 2 ] && [ "$tries" -ge 15 ]; }; then
        read -r _ primary replicas <<VIEW
$(printf '%s\n' "$seen" | tail -n 1)
VIEW
        if [ "$primary" != "$me" ]; then
            if [ "$waited" -ge 60 ] || [ "$(timeout 2 redis-cli -h "$primary" -p "$PORT" PING 2>/dev/null)" = PONG ]; then
                set -- --replicaof "$primary" "$PORT"
                break
            fi
            echo "waiting for $primary, the primary"
            waited=$((waited + 1))
        elif [ -d "$DATA/appendonlydir" ] || [ "$replicas" -eq 0 ]; then
            set --
            break
        else
            # The replicas would copy the emptiness. One of them is to take over first.
            echo "$me has no data and $replicas replicas have: waiting until the Sentinels choose one of them"
        fi
    else
        echo "$answers of 3 Sentinels answer"
    fi
    tries=$((tries + 1))
    sleep 1
done
echo "$me starts ${1:-as the primary} ${2:-}"
# Read from standard input, so that CONFIG REWRITE, which a Sentinel asks for, has no file in which to keep yesterday's primary.
exec redis-server --port "$PORT" --dir "$DATA" ${LISTEN:+--bind "$LISTEN"} \
    --replica-announce-ip "$me" --replica-announce-port "$PORT" "$@" - <"$CONFIG/redis.conf"
