package nodeapi

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/sandbox"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// making is a container while it is made.
type making struct {
	server *Server
	spec   *nodev1.ContainerSpec
	image  imageservice.Image
	name   string
	key    string
	ports  []publishedPort
	config configs
	// networking is what the specification says of networks, resolved.
	networking networking
	podID      string
	id         string
	// warnings are what a person is told and does not stop the making.
	warnings []string
	// users are the mappings of its user namespace; nil without one.
	users *runtime.UserNamespace
	// releases end the holding of volumes; madeVolumes are the anonymous
	// ones made for the container, and volumesStay forgets that they are to
	// go should this agent be killed.
	releases    []func()
	madeVolumes []string
	volumesStay func()
}

// Create makes a container: a pod of its own, then the container in it.
func (s *containers) Create(ctx context.Context, req *nodev1.CreateRequest) (*nodev1.CreateResponse, error) {
	m := &making{server: s.Server, spec: cloneSpec(req.GetSpec()), name: req.GetName(), key: newKey(), id: sandbox.NewID()}
	if err := validate(m.spec); err != nil {
		return nil, err
	}
	if err := s.validateHost(m.spec); err != nil {
		return nil, err
	}
	m.warnings = s.limitWarnings(m.spec.GetResources())
	var err error
	if err := m.findImage(ctx); err != nil {
		return nil, err
	}
	if err := checkCommand(m.spec, m.image.Config); err != nil {
		return nil, err
	}
	if err := s.findDevices(m.spec); err != nil {
		return nil, err
	}
	if m.name, err = s.reserveName(m.name); err != nil {
		return nil, err
	}
	defer s.releaseName(m.name)
	if m.networking, err = s.planNetworks(m.spec); err != nil {
		return nil, err
	}
	m.warnings = append(m.warnings, networkWarnings(m.spec)...)
	if m.ports, err = s.reservePorts(m.spec, m.image.Config); err != nil {
		return nil, err
	}
	defer s.releasePorts(m.ports)
	if m.users, err = s.reserveUsers(m.spec.GetSecurity().GetUserns()); err != nil {
		return nil, err
	}
	defer s.releaseUsers(m.users)
	if err := m.run(ctx); err != nil {
		return nil, err
	}
	if c, err := s.sandboxes.Container(m.id); err == nil {
		s.emitContainer("create", c)
	}
	return &nodev1.CreateResponse{Id: m.id, Warnings: m.warnings}, nil
}

// findImage finds the image and what it says of health. A container on a
// folder of the host has none.
func (m *making) findImage(ctx context.Context) error {
	var raw []byte
	if m.spec.GetRootfs() != "" {
		if err := checkRootfs(m.spec.GetRootfs()); err != nil {
			return err
		}
	} else {
		var err error
		if m.image, err = m.server.imageFor(ctx, m.spec); err != nil {
			return err
		}
		if raw, err = m.server.images.Configuration(ctx, m.image.ID); err != nil {
			return err
		}
		m.warnings = append(m.warnings, platformWarnings(m.spec, m.image.Config)...)
	}
	m.spec.Health = mergeHealth(m.spec.GetHealth(), imageHealth(raw))
	return nil
}

// run does what leaves something behind.
func (m *making) run(ctx context.Context) error {
	s := m.server
	defer m.releaseVolumes()
	m.volumesStay = func() {}
	err := undo.Sequence{Name: "nodectl.create", Timeout: undoTimeout, Steps: []undo.Step{
		{
			Name: "make folders",
			Do:   func(context.Context) error { return s.files.make(m.key) },
			Undo: func(context.Context) error { return s.files.remove(m.key) },
		},
		{Name: "gather mounts", Do: m.gatherMounts},
		{Name: "hold volumes", Do: m.holdVolumes, Undo: m.dropVolumes},
		{Name: "prepare mounts", Do: m.prepareMounts},
		{
			Name: "run pod",
			Do:   m.runPod,
			Undo: m.removePod,
		},
		{Name: "write network files", Do: m.writeNetworkFiles},
		{Name: "create container", Do: m.createContainer},
		{Name: "fill volumes", Do: m.fillVolumes},
		{Name: "note that it is made", Do: func(context.Context) error { return s.files.made(m.key) }},
	}}.Run(ctx)
	var worded *failure
	if errors.As(err, &worded) {
		return worded
	}
	if err != nil {
		if why, ok := m.createFailure(err); ok {
			return said(&failure{text: why, kind: err})
		}
		return fmt.Errorf("create container %s: %w", m.name, err)
	}
	m.volumesStay()
	return nil
}

// prepareMounts makes what the mounts of the configuration name.
func (m *making) prepareMounts(context.Context) error {
	if err := makeBindSources(m.spec.GetMounts()); err != nil {
		return err
	}
	if err := m.server.files.writeSeccomp(m.key, m.spec.GetSecurity().GetSeccomp()); err != nil {
		return err
	}
	var err error
	m.config, err = buildConfigs(m)
	if err != nil {
		return err
	}
	return m.server.files.makeTargets(m.key, m.spec.GetMounts())
}

// runPod runs the pod.
func (m *making) runPod(ctx context.Context) error {
	id, err := m.server.sandboxes.RunPod(ctx, sandbox.RunPodRequest{
		Config: m.config.pod, Owner: sandbox.OwnerNodectl, ShmSize: m.spec.GetShmBytes(),
		Domainname: m.spec.GetDomainname(), Networks: m.networking.membership, MAC: m.networking.mac,
	})
	m.podID = id
	return personal(err)
}

// removePod takes the pod away with what is in it.
func (m *making) removePod(ctx context.Context) error {
	if m.podID == "" {
		return nil
	}
	return m.server.discardPod(ctx, m.podID)
}

// createContainer makes the container in the pod.
func (m *making) createContainer(ctx context.Context) error {
	id, err := m.server.sandboxes.CreateContainer(ctx, sandbox.CreateContainerRequest{
		PodID: m.podID, Config: m.config.container, ID: m.id, Keep: true, Folder: m.spec.GetRootfs(), Extra: m.config.extra,
	})
	m.id = id
	return err
}

// imageFor returns the image a specification names, for its platform.
func (s *Server) imageFor(ctx context.Context, spec *nodev1.ContainerSpec) (imageservice.Image, error) {
	img, err := s.images.Image(ctx, spec.GetImage())
	if errdefs.IsNotFound(err) {
		return img, noSuchImage(spec.GetImage())
	}
	if err != nil {
		return img, referenceError(spec.GetImage(), fmt.Errorf("look up image %s: %w", spec.GetImage(), err))
	}
	if spec.GetPlatform() == "" || img.Config == nil {
		return img, nil
	}
	platform, err := platforms.Parse(spec.GetPlatform())
	if err != nil {
		return img, failf(errdefs.ErrInvalidArgument, "invalid platform %q", spec.GetPlatform())
	}
	if !platforms.NewMatcher(platform).Match(img.Config.Platform) {
		return img, noSuchImage(spec.GetImage())
	}
	return img, nil
}

// noSuchImage is docker's word for an image that is not there.
func noSuchImage(ref string) error {
	return failf(errdefs.ErrNotFound, "No such image: %s", withDefaultTag(ref))
}

// checkCommand refuses a container that would have nothing to run.
func checkCommand(spec *nodev1.ContainerSpec, image *ocispec.Image) error {
	if len(spec.GetCommand()) > 0 || len(spec.GetEntrypoint()) > 0 {
		return nil
	}
	if !spec.GetSetEntrypoint() && image != nil && (len(image.Config.Entrypoint) > 0 || len(image.Config.Cmd) > 0) {
		return nil
	}
	return failf(errdefs.ErrInvalidArgument, "no command specified")
}

// cloneSpec returns a copy that may be changed, with all parts there.
func cloneSpec(spec *nodev1.ContainerSpec) *nodev1.ContainerSpec {
	if spec == nil {
		spec = &nodev1.ContainerSpec{}
	}
	spec = proto.CloneOf(spec)
	if spec.Resources == nil {
		spec.Resources = &nodev1.Resources{}
	}
	if spec.Security == nil {
		spec.Security = &nodev1.Security{}
	}
	if spec.Network == nil {
		spec.Network = &nodev1.Network{}
	}
	if spec.Network.Mode == "" {
		spec.Network.Mode = networkBridge
	}
	return spec
}
