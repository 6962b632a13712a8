#!/usr/bin/env bash
# What tests need beside Python, on Debian and as root; those that miss it are skipped and say so. An engine, a base for
# images, Prometheus, the oldest Compose that has to read our files, and a browser for the status page.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
needs=(dockerd docker containerd runc debootstrap prometheus promtool iptables docker-compose chromium chromedriver)
packages=(docker.io debootstrap prometheus iptables docker-compose chromium chromium-driver)
for program in "${needs[@]}"; do
    if ! command -v "$program" >/dev/null; then
        apt-get -qq update
        apt-get -qq install --yes --no-install-recommends "${packages[@]}" >/dev/null
        exit
    fi
done
