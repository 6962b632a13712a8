#!/usr/bin/env bash
# What tests need beside Python, on Debian and as root; those that miss it are skipped and say so. An engine, a base for
# images, Prometheus, the oldest Compose that has to read our files, a browser for the status page, and libfiu for reads
# that fail.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
needs=(dockerd docker containerd runc debootstrap prometheus promtool iptables docker-compose chromium chromedriver fiu-run)
packages=(docker.io debootstrap prometheus iptables docker-compose chromium chromium-driver fiu-utils)
for program in "${needs[@]}"; do
    if ! command -v "$program" >/dev/null; then
        apt-get -qq update
        apt-get -qq install --yes --no-install-recommends "${packages[@]}" >/dev/null
        exit
    fi
done
