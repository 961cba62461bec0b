package e2e

import (
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// wrongText are texts that few fields take.
var wrongText = map[string]string{
	"NUL": "/a\x00b", "newline": "/a\nb", "long": "/" + strings.Repeat("a", 5000), "dots": "../../x", "relative": "a/b", "odd": "%%!!",
}

// wrongValues are values of a kind that few fields take.
func wrongValues(kind protoreflect.Kind) map[string]protoreflect.Value {
	out := map[string]protoreflect.Value{}
	switch kind {
	case protoreflect.StringKind:
		for name, text := range wrongText {
			out[name] = protoreflect.ValueOfString(text)
		}
	case protoreflect.Int64Kind:
		out["negative"], out["huge"] = protoreflect.ValueOfInt64(-5), protoreflect.ValueOfInt64(1<<62)
	case protoreflect.Int32Kind:
		out["negative"], out["huge"] = protoreflect.ValueOfInt32(-5), protoreflect.ValueOfInt32(1<<30)
	case protoreflect.Uint32Kind:
		out["huge"] = protoreflect.ValueOfUint32(math.MaxUint32)
	case protoreflect.Uint64Kind:
		out["huge"] = protoreflect.ValueOfUint64(math.MaxUint64)
	case protoreflect.EnumKind:
		out["unknown"] = protoreflect.ValueOfEnum(99)
	case protoreflect.BytesKind:
		out["NUL"] = protoreflect.ValueOfBytes([]byte("a\x00"))
	}
	return out
}

// wrong is a configuration with one wrong field.
type wrong struct {
	field, value string
	config       protoreflect.ProtoMessage
}

// sweep makes all wrong configurations of a right one. Fields of taken have the right to any value, or to those that
// are named; the reason stands there. Fields that are either right or wrong in a way no sweep finds, which is all that
// are true or false, must stand there too, so that none is forgotten.
type sweep struct {
	t     *testing.T
	right protoreflect.ProtoMessage
	taken map[string]taken
	seen  map[string]bool
	wrong []wrong
}

// taken says why a field takes values: all of them, or those of only.
type taken struct {
	why  string
	only []string
}

func (s *sweep) run(md protoreflect.MessageDescriptor, prefix string, at func(root protoreflect.Message, field string) protoreflect.Message) {
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		field := prefix + string(fd.Name())
		if fd.Name() == "windows" || s.all(field) {
			continue
		}
		switch {
		case fd.IsMap():
			s.field(field, fd.MapValue().Kind(), func(root protoreflect.Message, v protoreflect.Value) {
				at(root, field).Mutable(fd).Map().Set(protoreflect.ValueOfString("key").MapKey(), v)
			})
			s.field(field, fd.MapKey().Kind(), func(root protoreflect.Message, v protoreflect.Value) {
				at(root, field).Mutable(fd).Map().Set(v.MapKey(), protoreflect.ValueOfString("v"))
			})
		case fd.IsList() && fd.Kind() == protoreflect.MessageKind:
			s.run(fd.Message(), field+".", func(root protoreflect.Message, field string) protoreflect.Message {
				list := at(root, field).Mutable(fd).List()
				if list.Len() == 0 {
					list.AppendMutable()
				}
				// The last of the mounts is an image.
				if strings.HasPrefix(field, "mounts.image") {
					return list.Get(list.Len() - 1).Message()
				}
				return list.Get(0).Message()
			})
		case fd.IsList():
			s.field(field, fd.Kind(), func(root protoreflect.Message, v protoreflect.Value) { at(root, field).Mutable(fd).List().Append(v) })
		case fd.Kind() == protoreflect.MessageKind:
			s.run(fd.Message(), field+".", func(root protoreflect.Message, field string) protoreflect.Message {
				return at(root, field).Mutable(fd).Message()
			})
		default:
			s.field(field, fd.Kind(), func(root protoreflect.Message, v protoreflect.Value) { at(root, field).Set(fd, v) })
		}
	}
}

// all says that a field takes everything.
func (s *sweep) all(field string) bool {
	s.seen[field] = true
	t, ok := s.taken[field]
	return ok && t.only == nil
}

func (s *sweep) field(field string, kind protoreflect.Kind, set func(protoreflect.Message, protoreflect.Value)) {
	values := wrongValues(kind)
	if len(values) == 0 {
		s.t.Errorf("%s: nobody says what it takes", field)
	}
	for name, value := range values {
		if slices.Contains(s.taken[field].only, name) {
			continue
		}
		config := proto.Clone(s.right)
		set(config.ProtoReflect(), value)
		s.wrong = append(s.wrong, wrong{field, name, config})
	}
}

// configurations sweeps a message.
func configurations(t *testing.T, right proto.Message, takes map[string]taken) []wrong {
	s := &sweep{t: t, right: right, taken: takes, seen: map[string]bool{}}
	s.run(right.ProtoReflect().Descriptor(), "", func(root protoreflect.Message, _ string) protoreflect.Message {
		return root
	})
	for field := range takes {
		if !s.seen[field] {
			t.Errorf("there is no %s", field)
		}
	}
	return s.wrong
}

var (
	indexes = regexp.MustCompile(`\[[^\]]*\]`)
	// element is a part of an ID mapping or a number, which are named as a whole.
	element = regexp.MustCompile(`\.(host_id|container_id|length|value)$`)
)

// namesField checks an error for the code and the field's name.
func (w wrong) namesField(t *testing.T, err error) {
	t.Helper()
	field := element.ReplaceAllString(w.field, "")
	code := status.Code(err)
	if message := indexes.ReplaceAllString(status.Convert(err).Message(), ""); code != codes.InvalidArgument || !strings.Contains(message, field) {
		t.Errorf("%s, %s: %s %.300q", w.field, w.value, code, message)
	}
	if len(status.Convert(err).Message()) > 1000 {
		t.Errorf("%s, %s: a message of %d bytes", w.field, w.value, len(status.Convert(err).Message()))
	}
}

const (
	people = "is for people and their programs"
	bit    = "is true or false"
)

var podTakes = map[string]taken{
	"metadata.name":       {"is a name", []string{"long", "dots", "relative", "odd"}},
	"metadata.namespace":  {"is a name", []string{"long", "dots", "relative", "odd"}},
	"metadata.uid":        {"is a name", []string{"long", "dots", "relative", "odd"}},
	"metadata.attempt":    {"counts", nil},
	"labels":              {people, nil},
	"annotations":         {people, nil},
	"hostname":            {"is a name that UTS namespaces take", []string{"odd"}},
	"log_directory":       {"a file's name may hold a line's end", []string{"newline"}},
	"linux.cgroup_parent": {"is taken from the root on", []string{"relative", "odd"}},
	"dns_config.servers":  {"resolvers pass over what they do not know", []string{"long", "dots", "relative", "odd"}},
	"dns_config.searches": {"resolvers pass over what they do not know", []string{"long", "dots", "relative", "odd"}},
	"dns_config.options":  {"resolvers pass over what they do not know", []string{"long", "dots", "relative", "odd"}},

	"linux.security_context.privileged":                  {bit, nil},
	"linux.security_context.readonly_rootfs":             {bit + ", and a pod has no root filesystem", nil},
	"linux.security_context.namespace_options.target_id": {"means something with TARGET alone, which a pod cannot have", nil},
	"linux.security_context.selinux_options.user":        {"policies have names of all kinds", []string{"dots", "relative", "odd"}},
	"linux.security_context.selinux_options.role":        {"policies have names of all kinds", []string{"dots", "relative", "odd"}},
	"linux.security_context.selinux_options.type":        {"policies have names of all kinds", []string{"dots", "relative", "odd"}},
	"linux.security_context.selinux_options.level":       {"policies have names of all kinds", []string{"dots", "relative", "odd"}},

	"linux.resources.memory_limit_in_bytes":      {"the kernel takes it for none", []string{"huge"}},
	"linux.overhead.memory_limit_in_bytes":       {"the kernel takes it for none", []string{"huge"}},
	"linux.resources.memory_swap_limit_in_bytes": {"the kernel takes it for none", []string{"huge"}},
	"linux.overhead.memory_swap_limit_in_bytes":  {"the kernel takes it for none", []string{"huge"}},
	"linux.resources.oom_score_adj":              {"may be negative", []string{"negative"}},
	"linux.overhead.oom_score_adj":               {"may be negative", []string{"negative"}},
	"linux.resources.hugepage_limits.limit":      {"the kernel takes it for none", nil},
	"linux.overhead.hugepage_limits.limit":       {"the kernel takes it for none", nil},
}

var containerTakes = map[string]taken{
	"metadata.name":              {"is a name", []string{"long", "dots", "relative", "odd"}},
	"metadata.attempt":           {"counts", nil},
	"labels":                     {people, nil},
	"annotations":                {people, nil},
	"image.annotations":          {people, nil},
	"image.user_specified_image": {people, nil},
	"image.runtime_handler":      {"the pod's decides", nil},
	"image.image_ref":            {"is told, not asked for", nil},
	"image.image":                {"is a name, of an image that is not there", []string{"relative"}},
	"command":                    {"is the program's", []string{"newline", "long", "dots", "relative", "odd"}},
	"args":                       {"is the program's", []string{"newline", "long", "dots", "relative", "odd"}},
	"envs.key":                   {"is the program's", []string{"newline", "long", "dots", "relative", "odd"}},
	"working_dir":                {"a file's name may hold a line's end", []string{"newline"}},
	"log_path":                   {"a file's name may be anything", []string{"relative", "odd"}},
	"stdin":                      {bit, nil},
	"stdin_once":                 {bit, nil},
	"tty":                        {bit, nil},
	"mounts.readonly":            {bit, nil},
	"mounts.selinux_relabel":     {bit + ", and nothing is labelled", nil},
	"mounts.recursive_read_only": {bit + "; package spec has when not", nil},
	"mounts.container_path":      {"a file's name may hold a line's end", []string{"newline"}},
	"mounts.image.annotations":   {people, nil},
	"mounts.image.image":         {"is a name, of an image that is not there", []string{"relative"}},
	"mounts.image.image_ref":     {"is told, not asked for", nil},

	"mounts.image.user_specified_image":                  {people, nil},
	"mounts.image.runtime_handler":                       {"the pod's decides", nil},
	"devices.container_path":                             {"a file's name may hold a line's end", []string{"newline"}},
	"linux.security_context.privileged":                  {bit + "; only in a privileged pod", nil},
	"linux.security_context.readonly_rootfs":             {bit, nil},
	"linux.security_context.no_new_privs":                {bit, nil},
	"linux.security_context.namespace_options.target_id": {"means something with TARGET alone", nil},
	"linux.security_context.masked_paths":                {"a file's name may hold a line's end", []string{"newline"}},
	"linux.security_context.readonly_paths":              {"a file's name may hold a line's end", []string{"newline"}},
	"linux.security_context.selinux_options.user":        {"policies have names of all kinds", []string{"dots", "relative", "odd"}},
	"linux.security_context.selinux_options.role":        {"policies have names of all kinds", []string{"dots", "relative", "odd"}},
	"linux.security_context.selinux_options.type":        {"policies have names of all kinds", []string{"dots", "relative", "odd"}},
	"linux.security_context.selinux_options.level":       {"policies have names of all kinds", []string{"dots", "relative", "odd"}},
	"linux.resources.memory_limit_in_bytes":              {"the kernel takes it for none", []string{"huge"}},
	"linux.resources.memory_swap_limit_in_bytes":         {"the kernel takes it for none", []string{"huge"}},
	"linux.resources.oom_score_adj":                      {"may be negative", []string{"negative"}},
	"linux.resources.hugepage_limits.limit":              {"the kernel takes it for none", nil},
}

// Each field of the configurations is either wrong in InvalidArgument's words, with its name, or takes what it is given.
// A field that cri-api brings anew fails here until somebody says what it takes.
func TestEachFieldIsChecked(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	ids := []*runtimeapi.IDMapping{{HostId: 100000, Length: 65536}}
	pod := n.podConfig("fields")
	pod.Hostname, pod.DnsConfig = "host", &runtimeapi.DNSConfig{Servers: []string{"10.0.0.1"}}
	pod.PortMappings = []*runtimeapi.PortMapping{{HostPort: 12345, ContainerPort: 80}}
	pod.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: &runtimeapi.NamespaceOption{
			Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER,
			UsernsOptions: &runtimeapi.UserNamespace{Uids: ids, Gids: ids},
		},
		RunAsUser: &runtimeapi.Int64Value{}, RunAsGroup: &runtimeapi.Int64Value{},
	}
	limits := &runtimeapi.LinuxContainerResources{
		MemoryLimitInBytes: 1 << 26, HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}},
	}
	pod.Linux.Resources, pod.Linux.Overhead = limits, limits
	id := n.RunPod(pod)
	for _, w := range configurations(t, pod, podTakes) {
		_, err := n.RunPodError(w.config.(*runtimeapi.PodSandboxConfig))
		w.namesField(t, err)
	}
	ctr := pods.Shell("fields", "true")
	ctr.Mounts = []*runtimeapi.Mount{
		{HostPath: t.TempDir(), ContainerPath: "/a", UidMappings: ids, GidMappings: ids},
		{Image: &runtimeapi.ImageSpec{Image: images.Busybox}, ContainerPath: "/b", ImageSubPath: "etc"},
	}
	ctr.Devices = []*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: "/dev/nothing", Permissions: "rw"}}
	ctr.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("b")}}
	ctr.Linux = &runtimeapi.LinuxContainerConfig{
		SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: pod.Linux.SecurityContext.NamespaceOptions},
		Resources:       limits,
	}
	n.Create(id, pod, ctr)
	ctr.Metadata.Name = "wrong"
	for _, w := range configurations(t, ctr, containerTakes) {
		config := w.config.(*runtimeapi.ContainerConfig)
		if security := config.Linux.SecurityContext; strings.HasSuffix(w.field, "run_as_group.value") {
			security.RunAsUser = &runtimeapi.Int64Value{}
		}
		_, err := n.CreateError(id, pod, config)
		w.namesField(t, err)
	}
	n.RemovePod(id)
	if left := n.listPods(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
