#!/bin/sh
# Make a virtual environment that has pip, or say in one sentence what is missing.
# Usage: venv.sh PYTHON DIRECTORY. A sound environment that is already there is kept.
set -u
wanted=$1
venv=$2

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
has_pip() { "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; }
moved() { ! head -n 1 "$venv/bin/pip" 2>/dev/null | grep -qF "$(cd "$venv" && pwd)/bin/"; }
say() { echo "$*" >&2; }

if [ -x "$venv/bin/python" ] && new_enough "$venv/bin/python" && has_pip && ! moved; then
    exit 0
fi

python=
for candidate in "$wanted" python3.11 python3.12 python3.13 python3.14; do
    if new_enough "$candidate"; then python=$candidate && break; fi
done
if [ -z "$python" ]; then
    found=$("$wanted" -c 'import platform; print(platform.python_version())' 2>/dev/null)
    say "icewatch needs Python 3.11 or newer, and $wanted is ${found:-not there}: install one (on" \
        "Debian or Ubuntu: apt-get install python3 python3-venv) and name it, as in make PYTHON=python3.11"
    exit 1
fi

# Without Debian's python3-venv there is no ensurepip; virtualenv or the system's pip do as well.
with_venv() { "$python" -m venv --clear "$venv" >/dev/null 2>&1 && has_pip; }
with_virtualenv() { "$python" -m virtualenv --quiet --clear "$venv" >/dev/null 2>&1 && has_pip; }
with_system_pip() {
    "$python" -m venv --clear --without-pip "$venv" >/dev/null 2>&1 &&
        "$python" -m pip --python "$venv/bin/python" install --quiet pip >/dev/null 2>&1 && has_pip
}
package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
with_apt() {
    command -v apt-get >/dev/null 2>&1 || return 1
    root=
    if [ "$(id -u)" != 0 ]; then
        sudo -n true >/dev/null 2>&1 || return 1
        root="sudo -n"
    fi
    say "Installing the Debian package $package"
    { $root apt-get install -y "$package" || { $root apt-get update && $root apt-get install -y "$package"; }; } \
        >/dev/null 2>&1 </dev/null
    with_venv
}

with_venv || with_virtualenv || with_system_pip || with_apt || {
    say "Python's venv module cannot make an environment here: run 'sudo apt-get install $package' and try again"
    exit 1
}
