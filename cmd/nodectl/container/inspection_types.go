package container

import "time"

// The types below have docker's names, which templates use.
type (
	inspected struct {
		ID              string `json:"Id"`
		Created         string
		Path            string
		Args            []string
		State           state
		Image           string
		ResolvConfPath  string
		HostnamePath    string
		HostsPath       string
		LogPath         string
		Name            string
		RestartCount    int
		Driver          string
		Platform        string
		MountLabel      string
		ProcessLabel    string
		AppArmorProfile string
		ExecIDs         []string
		HostConfig      hostConfig
		GraphDriver     graphDriver
		SizeRw          *int64 `json:",omitempty"`
		SizeRootFs      *int64 `json:",omitempty"`
		Mounts          []mountPoint
		Config          containerConfig
		NetworkSettings networkSettings
		// Pod and CgroupPath are not docker's.
		Pod        *pod `json:",omitempty"`
		CgroupPath string
	}
	state struct {
		Status     string
		Running    bool
		Paused     bool
		Restarting bool
		OOMKilled  bool
		Dead       bool
		Pid        int64
		ExitCode   int32
		Error      string
		StartedAt  string
		FinishedAt string
		Health     *healthState `json:",omitempty"`
	}
	healthState struct {
		Status        string
		FailingStreak int64
		Log           []healthRun
	}
	healthRun struct {
		Start, End string
		ExitCode   int32
		Output     string
	}
	hostConfig struct {
		Binds                []string
		ContainerIDFile      string
		LogConfig            logConfig
		NetworkMode          string
		PortBindings         map[string][]portBinding
		RestartPolicy        restartPolicy
		AutoRemove           bool
		VolumeDriver         string
		ConsoleSize          [2]uint
		CapAdd               []string
		CapDrop              []string
		CgroupnsMode         string
		DNS                  []string `json:"Dns"`
		DNSOptions           []string `json:"DnsOptions"`
		DNSSearch            []string `json:"DnsSearch"`
		ExtraHosts           []string
		GroupAdd             []string
		IpcMode              string
		Cgroup               string
		Isolation            string
		OomScoreAdj          int64
		PidMode              string
		Privileged           bool
		PublishAllPorts      bool
		ReadonlyRootfs       bool
		SecurityOpt          []string
		Tmpfs                map[string]string `json:",omitempty"`
		CPUShares            int64             `json:"CpuShares"`
		Memory               int64
		NanoCPUs             int64 `json:"NanoCpus"`
		CpusetCpus           string
		CpusetMems           string
		Devices              []device
		PidsLimit            *int64
		Annotations          map[string]string `json:",omitempty"`
		VolumesFrom          []string
		Mounts               []mountRequest `json:",omitempty"`
		ShmSize              int64
		Init                 *bool `json:",omitempty"`
		Ulimits              []ulimit
		Sysctls              map[string]string `json:",omitempty"`
		Links                []string
		CgroupParent         string
		UTSMode              string
		UsernsMode           string
		Runtime              string
		CPUPeriod            int64 `json:"CpuPeriod"`
		CPUQuota             int64 `json:"CpuQuota"`
		CPURealtimePeriod    int64 `json:"CpuRealtimePeriod"`
		CPURealtimeRuntime   int64 `json:"CpuRealtimeRuntime"`
		CPUCount             int64 `json:"CpuCount"`
		CPUPercent           int64 `json:"CpuPercent"`
		BlkioWeight          uint32
		BlkioWeightDevice    []weightDevice
		BlkioDeviceReadBps   []throttledDevice
		BlkioDeviceWriteBps  []throttledDevice
		BlkioDeviceReadIOps  []throttledDevice
		BlkioDeviceWriteIOps []throttledDevice
		IOMaximumIOps        uint64
		IOMaximumBandwidth   uint64
		OomKillDisable       bool
		DeviceCgroupRules    []string
		MemoryReservation    int64
		MemorySwap           int64
		MemorySwappiness     *int64
		MaskedPaths          []string
		ReadonlyPaths        []string
		DeviceRequests       []deviceRequest
	}
	deviceRequest struct {
		Driver       string
		Count        int64
		DeviceIDs    []string
		Capabilities [][]string
		Options      map[string]string
	}
	weightDevice struct {
		Path   string
		Weight uint64
	}
	throttledDevice struct {
		Path string
		Rate uint64
	}
	ulimit struct {
		Name       string
		Hard, Soft int64
	}
	logConfig struct {
		Type   string
		Config map[string]string
	}
	restartPolicy struct {
		Name              string
		MaximumRetryCount int
	}
	portBinding struct {
		HostIP   string `json:"HostIp"`
		HostPort string
	}
	device struct {
		PathOnHost        string
		PathInContainer   string
		CgroupPermissions string
	}
	graphDriver struct {
		Data map[string]string
		Name string
	}
	mountPoint struct {
		Type        string
		Name        string `json:",omitempty"`
		Source      string
		Destination string
		Driver      string `json:",omitempty"`
		Mode        string
		RW          bool
		Propagation string
	}
	containerConfig struct {
		Hostname     string
		Domainname   string
		User         string
		AttachStdin  bool
		AttachStdout bool
		AttachStderr bool
		ExposedPorts map[string]struct{} `json:",omitempty"`
		Tty          bool
		OpenStdin    bool
		StdinOnce    bool
		Env          []string
		Cmd          []string
		Image        string
		Volumes      map[string]struct{}
		OnBuild      []string
		WorkingDir   string
		Entrypoint   []string
		Labels       map[string]string
		StopSignal   string       `json:",omitempty"`
		StopTimeout  *int         `json:",omitempty"`
		Healthcheck  *healthcheck `json:",omitempty"`
	}
	healthcheck struct {
		Test          []string
		Interval      time.Duration `json:",omitempty"`
		Timeout       time.Duration `json:",omitempty"`
		StartPeriod   time.Duration `json:",omitempty"`
		StartInterval time.Duration `json:",omitempty"`
		Retries       int32         `json:",omitempty"`
	}
	pod struct {
		ID        string `json:"Id"`
		Name      string
		Namespace string
		UID       string `json:"Uid"`
	}
)
