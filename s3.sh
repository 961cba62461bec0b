t() { echo "\$ nodectl $(printf '%q ' "$@")"; nodectl "$@"; echo "[rc $?]"; }
# log disk full
mkdir -p /tmp/small && mount -t tmpfs -o size=64k tmpfs /tmp/small
cat > /tmp/pod.json <<P
{"metadata":{"name":"logfull","namespace":"e2e","uid":"u1"},"hostname":"h","log_directory":"/tmp/small","linux":{"security_context":{"namespace_options":{"network":2}}}}
P
cat > /tmp/ctr.json <<P
{"metadata":{"name":"main"},"image":{"image":"registry.k8s.io/e2e-test-images/busybox:1.29-2"},"command":["sh","-c","i=0; while [ \$i -lt 5000 ]; do echo line \$i of many words that fill the disk; i=\$((i+1)); done; echo done; sleep 1000"],"log_path":"main.log","linux":{}}
P
export CONTAINER_RUNTIME_ENDPOINT=$NODEAGENT_HOST IMAGE_SERVICE_ENDPOINT=$NODEAGENT_HOST
C=/work/h/cache/bin/crictl
p=$($C runp /tmp/pod.json); c=$($C create $p /tmp/ctr.json /tmp/pod.json); $C start $c >/dev/null; sleep 2
df -h /tmp/small | tail -1
t why e2e/logfull/main
t logs --tail 2 e2e/logfull/main
t doctor -q
t inspect -f '{{json .State}}' e2e/logfull/main
grep -i "log" $STATE/supervisor.log | tail -5 | cut -c1-300
grep -iv "level=debug" $LOG | tail -5 | cut -c1-300
$C rmp -f $p; umount /tmp/small
# nodectl's own
t run --name deny --rm busybox nosuch; t why deny
t run -d --name rst --restart always busybox sh -c 'echo oops; exit 9' ; sleep 3; t ps -a --format '{{.Names}} {{.Status}}'; t why rst; nodectl rm -f rst
t run -d --name nosource --mount type=bind,source=/nope,target=/x busybox true
t why nosource
t run -d --name nouser -u nouser busybox true
t why nouser
t run -d --name nope nosuchimage:1 true
t why nope
t exec e2e/web true
t exec e2e/web/main echo hi
t exec e2e/web/nosuch true
t exec e2e/nosuch true
t logs e2e/web
t logs --tail 1 e2e/web/main
t stats --no-stream e2e/web/main
t top e2e/web/main
t pods -q
t pods -n e2e
t pods -n nosuch
t pods -f name=web
t pods -f bogus=1
t inspectp e2e/web
t ps -n e2e
t ps --pod web
t ops --no-trunc
t why
t why a b
t why -f '{{.State}}|{{.Cause}}' e2e/web/main
t why -f json e2e/web/main
t why 0
t why ''
