#!/usr/bin/env bash
# Lays the pages out as they lie in the repository, and builds the site. Fails on any warning.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf build/pages build/site
mkdir -p build/pages
cp -r README.md CHANGELOG.md CONTRIBUTING.md docs results build/pages/
mv build/pages/README.md build/pages/index.md
rm -rf build/pages/docs/*.py build/pages/docs/*.sh build/pages/docs/theme
"${1:-.venv/bin}/zensical" build --clean --strict
