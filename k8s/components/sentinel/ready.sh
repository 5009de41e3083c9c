#!/bin/sh
# Whether this server is what it should be: a primary that has read its file, or a replica that follows one.
set -eu
: "${PORT:=6379}" "${LISTEN:=127.0.0.1}"
said="$(timeout 2 redis-cli -h "$LISTEN" -p "$PORT" INFO persistence replication | tr -d '\r')"
case "$said" in
*loading:1*) exit 1 ;;
*role:master*) exit 0 ;;
*master_link_status:up*) exit 0 ;;
*) exit 1 ;;
esac
