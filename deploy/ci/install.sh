#!/usr/bin/env bash
# What `make test-bring-up` needs beside Python, on Debian and as root: an engine, a base for images, Prometheus, and
# the oldest Compose that has to read our files.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
needs=(dockerd docker containerd runc debootstrap prometheus promtool iptables docker-compose)
for program in "${needs[@]}"; do
    if ! command -v "$program" >/dev/null; then
        apt-get -qq update
        apt-get -qq install --yes --no-install-recommends docker.io debootstrap prometheus iptables docker-compose >/dev/null
        exit
    fi
done
