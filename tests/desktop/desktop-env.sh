#!/bin/sh
# desktop-env.sh CMD...: runs CMD in a desktop of its own: private X server, private session bus, private folders.
# Nothing it does can reach the desktop of whoever runs it. Engines and other caches are named by absolute paths.
set -e
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
mkdir -p "$d/run" "$d/cfg" "$d/data" "$d/cache"
chmod 700 "$d/run"
export HOME="$d" XDG_RUNTIME_DIR="$d/run" XDG_CONFIG_HOME="$d/cfg" XDG_DATA_HOME="$d/data" XDG_CACHE_HOME="$d/cache"
export GDK_BACKEND=x11 GTK_A11Y=none NO_AT_BRIDGE=1 LANG=C.UTF-8
unset WAYLAND_DISPLAY DBUS_SESSION_BUS_ADDRESS XAUTHORITY XDG_CURRENT_DESKTOP
xvfb-run -a -s "-screen 0 1280x800x24 -nolisten tcp" dbus-run-session -- "$@"
