#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install what is missing. tools/setup.sh packages NAME... | venv PYTHON DIRECTORY
# Debian packages need root or a sudo that asks nothing; otherwise the command is printed.
set -eu

packages() {
    missing=
    for name in "$@"; do
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' \
            || missing="$missing $name"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif sudo -n true 2>/dev/null; then
        as_root=sudo
    else
        echo "These Debian packages are missing. Install them, then run this again:" >&2
        echo "  sudo apt-get install -y$missing" >&2
        exit 1
    fi
    echo "installing$missing"
    $as_root apt-get -qq update
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $as_root apt-get -qq -y --no-install-recommends install \
        $missing >/dev/null
}

venv() {
    python=$1 directory=$2
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "Python 3.10 or newer is needed; name one with: make PYTHON=..." >&2
        exit 1
    }
    # Debian's python3 brings venv in a package of its own.
    "$python" -c 'import ensurepip' 2>/dev/null || packages python3-venv
    echo "making $directory with $("$python" --version)"
    "$python" -m venv "$directory"
    "$directory/bin/python" - >"$directory/requirements.txt" <<'EOF'
import re
text = open("pyproject.toml").read()
lists = re.findall(r"(?:dependencies|dev) = \[(.*?)\]", text, re.S)
print("\n".join(re.findall(r'"([^"]+)"', "".join(lists))))
EOF
    "$directory/bin/python" -m pip install -q --disable-pip-version-check \
        -r "$directory/requirements.txt"
}

action=$1
shift
case $action in
packages) packages "$@" ;;
venv) venv "$@" ;;
*) echo "usage: tools/setup.sh packages NAME... | venv PYTHON DIRECTORY" >&2; exit 2 ;;
esac
