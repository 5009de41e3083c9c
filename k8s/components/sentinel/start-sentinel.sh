#!/bin/sh
# Starts a Sentinel on what it knew before, under the settings of today.
#
# POD: the name of this pod. SERVERS, SENTINELS: the Services that give pods their names.
set -eu
: "${POD:?}" "${SERVERS:=rationd-redis}" "${SENTINELS:=rationd-sentinel}"
: "${PORT:=6379}" "${SENTINEL_PORT:=26379}" "${CONFIG:=/etc/redis}" "${DATA:=/data}"
state="$DATA/sentinel.conf"

learnt="$(grep -E '^sentinel (myid|monitor|(current|config|leader)-epoch|known-(replica|sentinel)) ' "$state" 2>/dev/null)" || true
# The first server is the first primary, for Sentinels that know nothing yet.
[ -n "$learnt" ] || learnt="sentinel monitor store $SERVERS-0.$SERVERS $PORT 2"
{
    cat "$CONFIG/sentinel.conf"
    echo "port $SENTINEL_PORT"
    echo "dir $DATA"
    [ -z "${LISTEN:-}" ] || echo "bind $LISTEN"
    echo "sentinel announce-ip $POD.$SENTINELS"
    echo "sentinel announce-port $SENTINEL_PORT"
    echo "$learnt"
} >"$state.new"
sync "$state.new"
mv "$state.new" "$state"
exec redis-server "$state" --sentinel
