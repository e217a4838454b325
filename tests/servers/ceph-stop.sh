#!/bin/bash
# Ends what ceph-start.sh DIR started, and removes DIR. Only processes whose pid files lie in DIR/run are touched; their
# data is throw-away, so they are killed.
dir=${1:?directory}
for file in "$dir"/run/*.pid; do
	[ -f "$file" ] || continue
	pid=$(cat "$file")
	case $(cat "/proc/$pid/comm" 2>/dev/null) in
	ceph-* | radosgw)
		kill -9 "$pid"
		for _ in $(seq 50); do
			[ -e "/proc/$pid" ] && ! grep -q 'State:.Z' "/proc/$pid/status" 2>/dev/null || break
			sleep 0.1
		done
		;;
	esac
done
rm -rf "$dir"
