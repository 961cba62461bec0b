package images

import (
	"fmt"
	"os"
	"path/filepath"
)

// WriteMirrors writes, for each registry that the images name, a hosts.toml below dir that sends pulls to the registry
// at base instead.
func WriteMirrors(dir, base string) error {
	for _, host := range Hosts() {
		server := "https://" + host
		if host == "docker.io" {
			server = "https://registry-1.docker.io"
		}
		text := fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", server, base)
		folder := filepath.Join(dir, host)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("create mirror folder: %w", err)
		}
		if err := os.WriteFile(filepath.Join(folder, "hosts.toml"), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write mirror of %s: %w", host, err)
		}
	}
	return nil
}
