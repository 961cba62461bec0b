package container

import (
	"cmp"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// inspection turns the agent's answer into docker's form.
func inspection(info *nodev1.InspectResponse) inspected {
	c := info.GetContainer()
	out := inspected{
		ID: c.GetId(), Created: stamp(c.GetCreatedAt()), Args: []string{}, Image: c.GetImageId(), State: stateOf(c),
		ResolvConfPath: info.GetResolvConfPath(), HostnamePath: info.GetHostnamePath(), HostsPath: info.GetHostsPath(), LogPath: info.GetLogPath(), Name: "/" + c.GetName(),
		Driver: "overlay", Platform: "linux", HostConfig: hostConfigOf(info), Config: configOf(info),
		GraphDriver:     graphDriverOf(info),
		Mounts:          mountPoints(c.GetMounts()),
		NetworkSettings: networkOf(info),
		CgroupPath:      info.GetCgroupPath(),
		ExecIDs:         info.GetExecIds(),
	}
	if args := c.GetArgs(); len(args) > 0 {
		out.Path, out.Args = args[0], append(out.Args, args[1:]...)
	}
	out.RestartCount = int(c.GetRestartCount())
	if c.GetHealth() != "" {
		out.State.Health = &healthState{Status: c.GetHealth(), FailingStreak: info.GetFailingStreak(), Log: []healthRun{}}
		for _, run := range info.GetHealthLog() {
			out.State.Health.Log = append(out.State.Health.Log, healthRun{
				Start: stamp(run.GetStart()), End: stamp(run.GetEnd()), ExitCode: run.GetExitCode(), Output: run.GetOutput(),
			})
		}
	}
	if p := c.GetPod(); p != nil {
		out.Pod = &pod{ID: p.GetId(), Name: p.GetName(), Namespace: p.GetNamespace(), UID: p.GetUid()}
	}
	return out
}

// graphDriverOf tells where the container's files are.
func graphDriverOf(info *nodev1.InspectResponse) graphDriver {
	out := graphDriver{Name: "overlay", Data: map[string]string{"MergedDir": info.GetRootfs(), "SnapshotKey": info.GetSnapshotKey()}}
	if dirs := info.GetLayerDirs(); len(dirs) > 0 {
		out.Data["UpperDir"], out.Data["LowerDir"] = dirs[0], strings.Join(dirs[1:], ":")
		out.Data["WorkDir"] = filepath.Join(filepath.Dir(dirs[0]), "work")
	}
	return out
}

// environmentOf is what the person set, then what the image has, without what every container gets.
func environmentOf(info *nodev1.InspectResponse) []string {
	if info.GetContainer().GetPod() != nil {
		return info.GetEnv()
	}
	out, set := []string{}, map[string]bool{"HOSTNAME": true, "TERM": info.GetSpec().GetTty()}
	for _, env := range info.GetSpec().GetEnv() {
		name, _, _ := strings.Cut(env, "=")
		out, set[name] = append(out, env), true
	}
	for _, env := range info.GetEnv() {
		if name, _, _ := strings.Cut(env, "="); !set[name] {
			out = append(out, env)
		}
	}
	return out
}

func stateOf(c *nodev1.Container) state {
	return state{
		Status: c.GetState(), Running: Live(c), Paused: c.GetState() == "paused", Restarting: c.GetState() == "restarting",
		OOMKilled: c.GetReason() == "OOMKilled", Pid: c.GetPid(), ExitCode: c.GetExitCode(), Error: c.GetMessage(),
		StartedAt: stamp(c.GetStartedAt()), FinishedAt: stamp(c.GetFinishedAt()),
	}
}

// stamp is a time as docker writes it; what has not happened is year one.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return "0001-01-01T00:00:00Z"
	}
	return t.AsTime().UTC().Format(time.RFC3339Nano)
}

func securityOptions(sec *nodev1.Security) []string {
	var out []string
	if sec.GetNoNewPrivileges() {
		out = append(out, "no-new-privileges")
	}
	if sec.GetSeccomp() != "" {
		out = append(out, "seccomp="+sec.GetSeccomp())
	}
	if sec.GetApparmor() != "" {
		out = append(out, "apparmor="+sec.GetApparmor())
	}
	for _, label := range sec.GetSelinux() {
		out = append(out, "label="+label)
	}
	return out
}

// bindings are the published ports by the container's.
func bindings(ports []*nodev1.Port) map[string][]portBinding {
	out := map[string][]portBinding{}
	for _, p := range ports {
		if p.GetHostPort() != 0 {
			out[portName(p)] = append(out[portName(p)], portBinding{HostIP: p.GetHostIp(), HostPort: strconv.Itoa(int(p.GetHostPort()))})
		}
	}
	return out
}

func mountPoints(mounts []*nodev1.Mount) []mountPoint {
	out := []mountPoint{}
	for _, m := range mounts {
		p := mountPoint{
			Type: "bind", Source: m.GetSource(), Destination: m.GetTarget(), RW: !m.GetReadOnly(), Propagation: m.GetPropagation(),
		}
		switch m.GetType() {
		case nodev1.Mount_TMPFS:
			p.Type, p.Source = "tmpfs", ""
		case nodev1.Mount_IMAGE:
			p.Type, p.RW = "image", false
		case nodev1.Mount_VOLUME:
			p.Type, p.Name, p.Source, p.Driver = "volume", m.GetSource(), m.GetPath(), "local"
		}
		if p.Type == "bind" && p.Propagation == "" {
			p.Propagation = "rprivate"
		}
		if m.GetReadOnly() {
			p.Mode = "ro"
		}
		out = append(out, p)
	}
	return out
}

func configOf(info *nodev1.InspectResponse) containerConfig {
	c, spec := info.GetContainer(), info.GetSpec()
	out := containerConfig{
		Hostname: spec.GetHostname(), Domainname: spec.GetDomainname(), User: spec.GetUser(), AttachStdin: slices.Contains(spec.GetAttach(), "stdin"),
		AttachStdout: slices.Contains(spec.GetAttach(), "stdout"), AttachStderr: slices.Contains(spec.GetAttach(), "stderr"),
		Tty: spec.GetTty(), OpenStdin: spec.GetStdin(), StdinOnce: spec.GetStdinOnce(), Env: environmentOf(info),
		Cmd: spec.GetCommand(), Image: cmp.Or(spec.GetImage(), c.GetImage()), WorkingDir: info.GetWorkingDir(), Entrypoint: spec.GetEntrypoint(),
		Labels: c.GetLabels(), StopSignal: info.GetStopSignal(), ExposedPorts: map[string]struct{}{},
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	if len(out.Cmd) == 0 && len(out.Entrypoint) == 0 {
		// What runs is the image's.
		out.Cmd = c.GetArgs()
	}
	for _, m := range spec.GetMounts() {
		if m.GetType() == nodev1.Mount_VOLUME && m.GetAnonymous() && !m.GetDetailed() {
			if out.Volumes == nil {
				out.Volumes = map[string]struct{}{}
			}
			out.Volumes[m.GetTarget()] = struct{}{}
		}
	}
	for _, p := range c.GetPorts() {
		out.ExposedPorts[portName(p)] = struct{}{}
	}
	if h := info.GetHealth(); len(h.GetTest()) > 0 {
		out.Healthcheck = &healthcheck{
			Test: h.GetTest(), Interval: h.GetInterval().AsDuration(), Timeout: h.GetTimeout().AsDuration(),
			StartPeriod: h.GetStartPeriod().AsDuration(), StartInterval: h.GetStartInterval().AsDuration(), Retries: h.GetRetries(),
		}
	}
	if spec.GetStopTimeout() != nil {
		seconds := int(spec.GetStopTimeout().AsDuration() / time.Second)
		out.StopTimeout = &seconds
	}
	return out
}

func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
