package server

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// descriptorsName is the file in a dump that tells what descriptors 0 to 2
// were. libcontainer writes it, and asks it for anonymous pipes at a restore;
// we put the names of our FIFOs there.
const descriptorsName = "descriptors.json"

// externalPattern is what externalFIFO makes. A dump comes from anywhere, and
// what is read of it goes into a configuration file.
var externalPattern = regexp.MustCompile(`^file\[[0-9a-f]{1,16}:[0-9a-f]{1,16}\]$`)

// descriptorsLimit bounds the file, in bytes.
const descriptorsLimit = 4096

func writeDescriptors(images string, names []string) error {
	data, err := json.Marshal(names)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(images, descriptorsName), data, 0o600)
}

// readDescriptors reads and checks what writeDescriptors wrote.
func readDescriptors(images string) ([]string, error) {
	data, err := readTail(filepath.Join(images, descriptorsName), descriptorsLimit)
	if err != nil {
		return nil, err
	}
	var names []string
	if err := json.Unmarshal(data, &names); err != nil || len(names) > 3 {
		return nil, fmt.Errorf("%s of the checkpoint is not ours: %w", descriptorsName, errdefs.ErrInvalidArgument)
	}
	for _, name := range names {
		if name != "" && !externalPattern.MatchString(name) {
			return nil, fmt.Errorf("%s of the checkpoint names %.140q: %w", descriptorsName, name, errdefs.ErrInvalidArgument)
		}
	}
	return names, nil
}

// restore restores the processes in place of running one. Their output goes
// into the new container's FIFOs.
func (st *starting) restore() error {
	names, err := readDescriptors(st.req.Restore)
	if err != nil {
		return err
	}
	var conf strings.Builder
	for fd, name := range names {
		if name != "" {
			fmt.Fprintf(&conf, "inherit-fd fd[%d]:%s\n", fd, name)
		}
	}
	if err := os.WriteFile(st.s.criuConfig(st.c.id), []byte(conf.String()), 0o600); err != nil {
		return err
	}
	hung := time.AfterFunc(dumpTime, st.s.killCRIU)
	defer hung.Stop()
	if err := st.handle.Restore(st.process, criuOptions(st.req.Restore)); err != nil {
		out, _ := readTail(filepath.Join(st.req.Restore, "restore.log"), logTail)
		return fmt.Errorf("restore: %s", criuError(out, err))
	}
	return nil
}
