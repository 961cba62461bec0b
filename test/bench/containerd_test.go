package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// containerdConfig: a lower oom_score_adj than its own is refused to containerd without CAP_SYS_RESOURCE, hence the
// restriction.
const containerdConfig = `version = 3
root = %[1]q
state = %[2]q
[grpc]
  address = %[3]q
[plugins."io.containerd.cri.v1.images".registry]
  config_path = %[4]q
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %[5]q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [%[6]q]
    conf_dir = %[7]q
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = %[8]q
`

// startContainerd starts containerd with runc on folders below dir and waits until it answers.
func startContainerd(t *testing.T, dir, cniConf string, registry *testenv.RegistryServer) *grpc.ClientConn {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	config := fmt.Sprintf(containerdConfig, at("root"), at("state"), at("sock"), registry.CertsDir, images.Pause,
		testenv.CNIPlugins(t), cniConf, testenv.Tool(t, "runc"))
	if err := os.WriteFile(at("config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(at("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(testenv.Tool(t, "containerd"), "--config", at("config.toml"))
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(testenv.Tool(t, "containerd-shim-runc-v2"))+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	conn, err := grpc.NewClient("unix://"+at("sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	testenv.Eventually(t, 30*time.Second, "containerd answers", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := runtimeapi.NewRuntimeServiceClient(conn).Status(ctx, &runtimeapi.StatusRequest{})
		return err
	})
	return conn
}
