package images

import (
	"fmt"
	"os"
	"path/filepath"
)

// WriteMirrors writes, for each registry that the images name, a hosts.toml below dir that has the registry at base in its
// place, so that nothing else is asked.
func WriteMirrors(dir, base string) error {
	for _, host := range Hosts() {
		text := fmt.Sprintf("server = %q\n", base)
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
