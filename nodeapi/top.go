package nodeapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

const (
	// psTimeout bounds the run of ps.
	psTimeout = 10 * time.Second
	// maxPsOutput is how much of what ps says is read, in bytes.
	maxPsOutput = 16 << 20
)

// Top lists the processes of a running container. The node's ps is run, as
// docker does, because a person's options are its own.
func (s *containers) Top(ctx context.Context, req *nodev1.TopRequest) (*nodev1.TopResponse, error) {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	if !running(c) {
		return nil, failf(errdefs.ErrFailedPrecondition, "container %s is not running", c.ID)
	}
	pids, err := s.sandboxes.Processes(c.ID)
	if err != nil {
		return nil, err
	}
	args := req.GetArgs()
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	// Without being told which, ps may choose others; not all options go together with that.
	out, err := runPs(ctx, append([]string{quickPs(pids)}, args...))
	if err != nil {
		out, err = runPs(ctx, args)
	}
	if err != nil {
		return nil, err
	}
	resp, err := parsePs(out, pids)
	if err == nil {
		s.emitContainer("top", c)
	}
	return resp, err
}

// quickPs is the option of ps that names processes.
func quickPs(pids []int) string {
	words := make([]string, 0, len(pids))
	for _, pid := range pids {
		words = append(words, strconv.Itoa(pid))
	}
	return "-q" + strings.Join(words, ",")
}

// runPs runs the node's ps.
func runPs(ctx context.Context, args []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, psTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ps", args...)
	cmd.WaitDelay = time.Second
	out, wrong := &boundedBuffer{limit: maxPsOutput}, &boundedBuffer{limit: 4096}
	cmd.Stdout, cmd.Stderr = out, wrong
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, failf(errdefs.ErrUnavailable, "the node has no ps: install procps")
	}
	if err != nil {
		said, _, _ := strings.Cut(strings.TrimSpace(wrong.String()), "\n")
		if said == "" {
			said = err.Error()
		}
		return nil, failf(errdefs.ErrInvalidArgument, "ps: %s", said)
	}
	return out.b.Bytes(), nil
}

// parsePs takes the lines of ps that are about one of the processes. The last
// column may hold blanks; no other does.
func parsePs(out []byte, pids []int) (*nodev1.TopResponse, error) {
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, maxPsOutput)
	if !lines.Scan() {
		return nil, failf(errdefs.ErrInvalidArgument, "ps says nothing")
	}
	resp := &nodev1.TopResponse{Titles: strings.Fields(lines.Text())}
	column := slices.Index(resp.GetTitles(), "PID")
	if column < 0 {
		return nil, failf(errdefs.ErrInvalidArgument, "Couldn't find PID field in ps output")
	}
	wanted := map[string]bool{}
	for _, pid := range pids {
		wanted[strconv.Itoa(pid)] = true
	}
	for lines.Scan() {
		fields := columns(lines.Text(), len(resp.GetTitles()))
		if len(fields) > column && wanted[fields[column]] {
			resp.Processes = append(resp.Processes, &nodev1.Process{Fields: fields})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read what ps says: %w", err)
	}
	return resp, nil
}

// columns splits a line into at most n fields, the last of which is the rest.
func columns(line string, n int) []string {
	var out []string
	for len(out) < n-1 {
		line = strings.TrimLeft(line, " \t")
		end := strings.IndexAny(line, " \t")
		if end < 0 {
			break
		}
		out = append(out, line[:end])
		line = line[end:]
	}
	if line = strings.TrimSpace(line); line != "" {
		out = append(out, line)
	}
	return out
}
