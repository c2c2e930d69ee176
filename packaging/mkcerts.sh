#!/bin/sh
# Makes new certificates for docker exec and runq-exec: an authority, whose key is thrown away, and pairs that it has signed
# for the agents in the guests and for their clients. Those that are there are overwritten; containers that run keep theirs.
set -e
root=$(dirname "$(dirname "$(realpath "$0")")")
RUNQ_ROOT=$root exec "$root/runq" certs
