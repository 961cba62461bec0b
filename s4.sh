t() { echo "\$ $(printf '%q ' "$@")"; "$@"; echo "[rc $?]"; }
ls -la $SOCK; d=$(dirname $SOCK); chmod 755 $d
cp /work/h/dbgx/bin/nodectl /tmp/nodectl; chmod 755 /tmp/nodectl /tmp
t setpriv --reuid 65534 --clear-groups /tmp/nodectl ps
t env NODEAGENT_HOST=unix:///etc/passwd nodectl ps
t env NODEAGENT_HOST=garbage nodectl ps
t env NODEAGENT_HOST= nodectl ps
t env NODEAGENT_HOST=unix:///tmp/nodectl/x nodectl ps
t nodectl ps --format '{{json .}}' | head -c 300
t nodectl stats --no-stream --format '{{.Name}}: {{.CPUPerc}}'
t nodectl images -q
t nodectl image inspect -f '{{.Os}}/{{.Architecture}}' busybox
t nodectl image inspect -f '{{json .Config}}' busybox
t nodectl registry explain busybox
rm $SOCK
t nodectl ps
