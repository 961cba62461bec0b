t() { echo "\$ nodectl $(printf '%q ' "$@")"; nodectl "$@"; echo "[rc $?]"; }
nodectl volume create --label a=b vol >/dev/null
nodectl network create --label c=d net1 >/dev/null
nodectl run -d --name a -p 8080:80 -l k=v -l k2=v2 -v vol:/data -v /tmp:/host --network net1 busybox sleep 1000 >/dev/null
nodectl create --name b busybox echo hi >/dev/null
for f in .ID .Image .Command .CreatedAt .RunningFor .Ports .State .Status .Size .Names .Labels '.Label "k"' .Mounts .Networks .LocalVolumes .Platform .HealthStatus .NoSuch; do t ps -a --format "{{$f}}"; done
t ps --format json
t ps --format '{{json .}}'
t ps --format 'table {{.ID}}\t{{.Names}}'
t ps --format 'table {{.Names}} and {{.Label "k"}}'
t ps -a --format table
t ps --format 'table {{upper .Names}}\t{{json .Labels}}'
t ps --format '{{.ID'
t ps --format '{{nofunc .ID}}'
t ps --format '{{.ID}}{{end}}'
t ps --format 'raw'
t ps --format pretty
t ps --format '{{.Names | upper | lower | title | pad 2 3}}|{{truncate .Command 5}}|{{split .Image ":"}}|{{join (split .Image ":") "/"}}|{{println .ID}}'
t ps --format '{{pad .Names 1 2}}|{{title .State}}'
t ps --format '{{range split .Names ","}}{{.}}{{end}}'
t ps -q --format '{{.Names}}'
t ps --no-trunc --format '{{.ID}} {{.Command}}'
t ps -s --format '{{.Size}}'
t ps -s
t pods --format json
t pods --format '{{json .}}'
t pods --format 'table {{.Name}}\t{{.NoSuch}}'
t pods --format '{{.Nope}}'
t images --format '{{.ID}} {{.Repository}} {{.Tag}} {{.Digest}} {{.CreatedSince}} {{.CreatedAt}} {{.Size}} {{.Containers}} {{.SharedSize}} {{.UniqueSize}} {{.VirtualSize}}'
t images --format json
t images --format 'table {{.ID}}\t{{.Repository}}'
t images --digests
t images --format '{{.Nope}}'
t stats --no-stream
t stats --no-stream --format json
t stats --no-stream --format 'table {{.Container}}\t{{.Name}}\t{{.ID}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}'
t stats --no-stream --no-trunc a
t stats --no-stream nosuch
t stats --no-stream --pods
t stats --no-stream --pods --format json
t stats --no-stream e2e/web
t volume ls
t volume ls --format '{{.Name}} {{.Driver}} {{.Scope}} {{.Mountpoint}} {{.Labels}} {{.Label "a"}} {{.Links}} {{.Size}} {{.Group}} {{.Availability}} {{.Status}}'
t volume ls --format json
t volume ls --format 'table {{.Name}}'
t network ls
t network ls --format '{{.ID}} {{.Name}} {{.Driver}} {{.Scope}} {{.IPv4}} {{.IPv6}} {{.Internal}} {{.Labels}} {{.Label "c"}} {{.CreatedAt}}'
t network ls --format json
t events --since 1m --until 0s
t events --since 1m --until 0s --format json
t events --since 1m --until 0s --format '{{.Type}} {{.Action}} {{.Actor.ID}} {{.ID}} {{.Status}} {{.From}} {{.Time}} {{.TimeNano}} {{.Scope}} {{.Actor.Attributes.name}}'
t events --since 1m --until 0s --format '{{.Nope}}'
t events --since 1m --until 0s --format 'table {{.Type}}'
t inspect -f '{{.Name}} {{.State.Status}} {{.Config.Labels.k}} {{json .Mounts}}' a
t inspect -f '{{.Nope}}' a
t inspect -f '{{.State.Nope}}' a
t inspect -f '{{index .Config.Labels "k"}}' a
t inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' a
t inspect --format json a
t inspect -f '{{.Id' a
t inspect nosuch a nosuch2
t inspect -f '{{.Name}}' nosuch a
t rm nosuch b nosuch2
t stop nosuch1 nosuch2
t kill nosuch a
t start nosuch
t wait nosuch
t volume inspect nosuch vol
t volume rm nosuch
t network rm nosuch net1
t rmi nosuch
t logs nosuch
t inspectp -f '{{.Nope}}' e2e/web
t inspectp nosuch e2e/web -f '{{.status.id}}'
