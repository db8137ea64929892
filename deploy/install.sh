#!/bin/sh
# Installs icewatch as a service on Debian and Ubuntu, upgrades it in place, and takes it away.
# Run it from the folder of the source code; `install.sh --help` lists what it takes.
set -u
umask 022

usage() {
    cat <<'END'
Usage: sudo sh deploy/install.sh [OPTION]...

Makes a virtual environment in /opt/icewatch, a user, a service and a configuration for one
microscope. Run again, it upgrades: configurations and state stay, services are restarted.

  --name NAME       microscope: its service is icewatch@NAME, its configuration
                    /etc/icewatch/NAME.toml (default: krios1)
  --data DIR        folder that the tilts land in, for a new configuration
  --data-group G    group that may read that folder; the service is made a member
  --wheels DIR      install from this folder of wheels, without any network
  --gpu             with TensorRT, and let the service use an NVIDIA GPU; an upgrade keeps to it
  --no-gpu          no longer use the GPU
  --python PYTHON   Python 3.11 or newer to install for (default: the newest that is there)
  --uninstall       take the service away; configurations and state stay
  --purge           with --uninstall: take configurations, state and user away as well
  --root DIR        put all files below DIR and start nothing, to try this script
  --help            show this
END
}

say() { printf '%s\n' "$*"; }
fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}
misused() {
    printf 'install.sh: %s; see install.sh --help\n' "$*" >&2
    exit 2
}

source=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit 1
name=krios1 data='' data_group='' wheels='' gpu='' python='' uninstall=no purge=no root=''

while [ $# -gt 0 ]; do
    case $1 in
    --name | --data | --data-group | --wheels | --python | --root)
        if [ $# -lt 2 ] || [ -z "$2" ]; then misused "$1 needs a value"; fi
        case $1 in
        --name) name=$2 ;;
        --data) data=$2 ;;
        --data-group) data_group=$2 ;;
        --wheels) wheels=$2 ;;
        --python) python=$2 ;;
        --root) root=$2 ;;
        esac
        shift
        ;;
    --gpu) gpu=yes ;;
    --no-gpu) gpu=no ;;
    --uninstall) uninstall=yes ;;
    --purge) purge=yes ;;
    --help | -h) usage && exit 0 ;;
    *) misused "there is no option '$1'" ;;
    esac
    shift
done

case $name in
*[!A-Za-z0-9_-]* | -*) misused "--name '$name' must be letters, digits, - and _ only" ;;
esac
case $data in
'' | /*) ;;
*) misused "--data '$data' must be a whole path that begins with /" ;;
esac
case $data in
*[\"\\\|\&]* | *'
'*) misused "--data holds a character that this script cannot write; edit /etc/icewatch/$name.toml" ;;
esac
[ "$purge" = no ] || [ "$uninstall" = yes ] || misused "--purge goes with --uninstall"

if [ -n "$root" ]; then
    mkdir -p "$root" || fail "'$root' cannot be made; name a folder that you may write to"
    root=$(CDPATH='' cd -- "$root" && pwd)
elif [ "$(id -u)" != 0 ]; then
    fail "this needs root: run it with sudo"
elif ! command -v systemctl >/dev/null 2>&1; then
    fail "there is no systemd here; install with pip and start 'icewatch run' by other means"
fi

case $python in
*/*) python=$(CDPATH='' cd -- "$(dirname -- "$python")" 2>/dev/null && pwd)/$(basename -- "$python") ;;
esac
if [ -n "$wheels" ]; then
    [ -d "$wheels" ] || fail "--wheels '$wheels' is no folder; name the one with the wheels"
    wheels=$(CDPATH='' cd -- "$wheels" && pwd) || exit 1
    ls "$wheels"/icewatch-*.whl >/dev/null 2>&1 ||
        fail "--wheels '$wheels' holds no icewatch-*.whl; fill it as deploy/README.md says"
fi
cd / || exit 1 # Python looks for packages in the folder that it is started in

opt=$root/opt/icewatch
releases=$root/opt/icewatch-releases
etc=$root/etc/icewatch
units=$root/etc/systemd/system
dropins=$units/icewatch@.service.d
command=$root/usr/local/bin/icewatch
if [ -z "$gpu" ]; then
    gpu=no
    [ ! -e "$dropins/gpu.conf" ] || gpu=yes
fi

# Nothing is done to the running system where all goes below another root.
on_system() { [ -n "$root" ] || "$@"; }
instances() {
    [ -n "$root" ] || systemctl list-units --all --plain --no-legend 'icewatch@*.service' | awk '{print $1}'
}

take_away() {
    for unit in $(instances); do
        systemctl disable --now --quiet "$unit" || fail "$unit cannot be stopped; see systemctl status $unit"
    done
    for link in "$units"/multi-user.target.wants/icewatch@*.service; do rm -f "$link"; done
    rm -f "$units/icewatch@.service" "$dropins/gpu.conf"
    rmdir "$dropins" 2>/dev/null
    [ -L "$command" ] && rm -f "$command"
    rm -rf "$opt" "$releases"
    rm -f "$root/etc/sysusers.d/icewatch.conf" "$root/etc/tmpfiles.d/icewatch.conf"
    if [ "$purge" = yes ]; then
        rm -rf "$etc" "$root/var/lib/icewatch" "$dropins" "$units"/icewatch@*.service.d
        if [ -z "$root" ] && id icewatch >/dev/null 2>&1; then userdel icewatch; fi
        say "icewatch is gone, with its configurations and state."
    else
        say "icewatch is gone. Configurations stay in $etc, state in $root/var/lib/icewatch;"
        say "install.sh --uninstall --purge takes them away too."
    fi
    on_system systemctl daemon-reload
}

if [ "$uninstall" = yes ]; then
    take_away
    exit 0
fi

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
find_python() {
    if [ -n "$python" ]; then
        new_enough "$python" || fail "--python $python is not Python 3.11 or newer"
        return
    fi
    for python in python3.14 python3.13 python3.12 python3.11 python3; do
        new_enough "$python" && return
    done
    found=$(python3 -c 'import platform; print(platform.python_version())' 2>/dev/null)
    fail "icewatch needs Python 3.11 or newer and found ${found:-none}: install one" \
        "(apt-get install python3.11 python3.11-venv) and name it with --python"
}
find_python
"$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
    fail "$python lacks its venv module: apt-get install $("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"

for file in systemd/icewatch@.service systemd/gpu.conf systemd/sysusers.d/icewatch.conf \
    systemd/tmpfiles.d/icewatch.conf deploy/icewatch.example.toml constraints.txt; do
    [ -r "$source/$file" ] || fail "'$source/$file' is missing; run this script in the whole source folder"
done
if [ -n "$data_group" ] && [ -z "$root" ]; then
    getent group "$data_group" >/dev/null || fail "--data-group: there is no group '$data_group'"
fi
if [ -e "$opt" ] && [ ! -L "$opt" ] && [ ! -e "$opt/pyvenv.cfg" ]; then
    fail "'$opt' is there and is no virtual environment; move it away"
fi

# Room for the new environment beside the old one, in megabytes.
needed_mb=900
[ "$gpu" = no ] || needed_mb=2600
mkdir -p "$releases" 2>/dev/null || fail "'$releases' cannot be made; is the disk writable?"
free_mb=$(df -Pm "$releases" | awk 'NR == 2 {print $4}')
[ "$free_mb" -ge "$needed_mb" ] ||
    fail "the disk of $releases has $free_mb MB left and $needed_mb MB are needed: free some"

# A whole new environment, put in place of the old one by one rename: what fails changes nothing.
release=$releases/$(date -u +%Y%m%dT%H%M%SZ)-$$
log=$(mktemp) || fail "no temporary file can be made; is /tmp full?"
done=no
clean_up() {
    rm -f "$log"
    [ "$done" = yes ] || rm -rf "$release"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

extras=''
[ "$gpu" = no ] || extras='[gpu]'
install_packages() {
    set -- --no-input --disable-pip-version-check --quiet -c "$source/constraints.txt"
    if [ -n "$wheels" ]; then
        "$release/bin/python" -m pip install "$@" --no-index --find-links "$wheels" "icewatch$extras"
    elif [ -r "$source/pyproject.toml" ]; then
        # A copy, since building leaves files behind.
        "$python" -c 'import shutil, sys
shutil.copytree(*sys.argv[1:], ignore=shutil.ignore_patterns(".*", "build", "tests"))' \
            "$source" "$release/source" &&
            "$release/bin/python" -m pip install "$@" "$release/source$extras" &&
            rm -rf "$release/source"
    else
        "$release/bin/python" -m pip install "$@" "icewatch$extras"
    fi
}
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
say "Installing icewatch for $("$python" --version) in $opt; this takes a minute or two ..."
"$python" -m venv "$release" >"$log" 2>&1 || fail "no virtual environment could be made: $(tail -n 1 "$log")"
if ! install_packages >"$log" 2>&1; then
    why=$(grep '^ERROR' "$log" | head -n 1)
    hint='is the package index reachable? Without network use --wheels'
    [ -z "$wheels" ] || hint="fill '$wheels' for this Python, as deploy/README.md says"
    fail "pip could not install icewatch: ${why:-$(tail -n 1 "$log")} ($hint)"
fi
"$release/bin/icewatch" check "$source/deploy/icewatch.example.toml" >"$log" 2>&1 ||
    fail "icewatch was installed but does not run here: $(tail -n 1 "$log")"

unwritable() { fail "'$1' cannot be written; is the disk full or read-only?"; }
put() { # FROM TO: replaced in one step, so that no half of it is ever read
    if ! { mkdir -p "$(dirname "$2")" && cp "$1" "$2.new" && chmod 644 "$2.new" && mv -f "$2.new" "$2"; }; then
        unwritable "$2"
    fi
}
put "$source/systemd/sysusers.d/icewatch.conf" "$root/etc/sysusers.d/icewatch.conf"
put "$source/systemd/tmpfiles.d/icewatch.conf" "$root/etc/tmpfiles.d/icewatch.conf"
put "$source/systemd/icewatch@.service" "$units/icewatch@.service"
if [ "$gpu" = yes ]; then
    put "$source/systemd/gpu.conf" "$dropins/gpu.conf"
else
    rm -f "$dropins/gpu.conf"
fi
if [ -n "$data_group" ]; then
    mkdir -p "$units/icewatch@$name.service.d"
    printf '[Service]\nSupplementaryGroups=%s\n' "$data_group" >"$units/icewatch@$name.service.d/data-group.conf"
fi
make_user() { systemd-sysusers icewatch.conf && systemd-tmpfiles --create icewatch.conf; }
on_system make_user >"$log" 2>&1 || fail "the user icewatch could not be made: $(tail -n 1 "$log")"

write_configuration() {
    n=0 # instances side by side need ports of their own
    while grep -Eqs ":($((5556 + n))|$((9108 + n))|$((8080 + n)))\"" "$etc"/*.toml; do n=$((n + 1)); done
    sed -e "s|krios1|$name|g" -e "s|:5556\"|:$((5556 + n))\"|" -e "s|:9108\"|:$((9108 + n))\"|" \
        -e "s|:8080\"|:$((8080 + n))\"|" -e "${data:+s|\"/data/offload\"|\"$data\"|}" \
        "$source/deploy/icewatch.example.toml" >"$etc/$name.toml.new" &&
        chmod 640 "$etc/$name.toml.new" &&
        on_system chgrp icewatch "$etc/$name.toml.new" &&
        mv "$etc/$name.toml.new" "$etc/$name.toml"
}
mkdir -p "$etc"
if [ -e "$etc/$name.toml" ]; then
    about="was there and is left as it is"
    [ -z "$data" ] || about="$about: --data changes nothing in it"
else
    about="was made from the example"
    write_configuration || unwritable "$etc/$name.toml"
fi

[ -L "$opt" ] || [ ! -e "$opt" ] || mv "$opt" "$releases/before"
ln -sfn "icewatch-releases/$(basename "$release")" "$opt.new" || unwritable "$opt"
mv -fT "$opt.new" "$opt" || unwritable "$opt"
done=yes
mkdir -p "$(dirname "$command")"
{ [ -e "$command" ] && [ ! -L "$command" ]; } || ln -sfn "$opt/bin/icewatch" "$command"

on_system systemctl daemon-reload
restarted=''
for unit in $(instances); do
    if systemctl is-active --quiet "$unit"; then
        systemctl restart "$unit" || fail "$unit did not start again; see systemctl status $unit"
        restarted="$restarted $unit"
    fi
done
for old in "$releases"/*; do
    [ "$old" = "$release" ] || rm -rf "$old"
done

say "icewatch is installed: $("$release/bin/python" -c 'from importlib.metadata import version; print(version("icewatch"))') in $opt."
[ -z "$restarted" ] || say "Restarted:$restarted"
say "The configuration $etc/$name.toml $about."
cat <<END

What to do next:
  1. See that acquisition.directory is the folder that the tilts land in:
       sudo nano $etc/$name.toml
  2. See that all is right:
       sudo -u icewatch icewatch check $etc/$name.toml
  3. Start it, now and at every boot, and look on:
       sudo systemctl enable --now icewatch@$name
       journalctl -u icewatch@$name -f
deploy/README.md tells the rest: network shares, other computers, GPU, alerts, upgrades.
END
