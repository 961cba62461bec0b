package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/leak"
)

const (
	// downLimit bounds taking everything down, which also happens after an interrupt.
	downLimit = time.Minute
	// goneLimit is how long what the kernel removes by itself may take to go.
	goneLimit = 10 * time.Second
	// maxAnswer and maxLog bound, in bytes, what is shown.
	maxAnswer = 4 << 10
	maxLog    = 64 << 10
)

// Options says what to show.
type Options struct {
	// Agent is the nodeagent program, a static one, since it is the image too.
	Agent string
	// Supervisor is the nodesupervisor program; empty leaves the choice to the agent.
	Supervisor string
	// Out is where the story is told.
	Out io.Writer
}

// show is one run of the demo.
type show struct {
	Options
	dir      string
	agent    *agent
	registry *registry
	config   *runtimeapi.PodSandboxConfig
	pod      string
	address  string
	began    time.Time
}

// step is one thing shown, under its title; undo is nil where nothing is to be taken back.
type step struct {
	title string
	do    func(ctx context.Context) error
	undo  func(ctx context.Context) error
}

// Run tells the whole story and takes everything down, after a failure or when ctx is done too. A nil error means that
// the pod answered and that nothing was left behind.
func Run(ctx context.Context, options Options) error {
	before, err := leak.Take()
	if err != nil {
		return fmt.Errorf("look at the machine: %w", err)
	}
	dir, err := os.MkdirTemp("", "nodeagent-demo-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	s := &show{Options: options, dir: dir, agent: newAgent(options.Agent, options.Supervisor, dir), began: time.Now()}
	err = s.play(ctx)
	if removed := os.RemoveAll(dir); removed != nil {
		err = errors.Join(err, fmt.Errorf("remove %s: %w", dir, removed))
	}
	if err != nil {
		return err
	}
	s.say("Look for what was left behind")
	left := stillThere(before)
	if len(left) > 0 {
		return fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
	}
	s.tell("Nothing: no mount, namespace, link, rule, cgroup, process or file.")
	return nil
}

// play does the steps in order and undoes those that were begun, in reverse.
func (s *show) play(ctx context.Context) (err error) {
	for _, one := range []step{
		{"Make an image of this program and serve it on a loopback port", s.serveImage, s.stopServing},
		{"Start an agent on throwaway folders", s.startAgent, s.stopAgent},
		{"Pull the image", s.pull, nil},
		{"Run a pod on the embedded network", s.runPod, s.removePod},
		{"Start a container in it", s.startContainer, nil},
		{"Fetch a page from its address", s.fetch, nil},
		{"Read its log", s.readLog, nil},
	} {
		s.say(one.title)
		if one.undo != nil {
			defer func() {
				down, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
				defer cancel()
				err = errors.Join(err, one.undo(down))
			}()
		}
		if err := one.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", strings.ToLower(one.title[:1])+one.title[1:], err)
		}
	}
	return nil
}

func (s *show) say(title string) {
	fmt.Fprintf(s.Out, "\n[%5.2f s] %s\n", time.Since(s.began).Seconds(), title)
}

func (s *show) tell(format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), "\n")
	fmt.Fprintln(s.Out, "    "+strings.ReplaceAll(text, "\n", "\n    "))
}

func (s *show) serveImage(context.Context) error {
	image, err := newImage(s.Agent)
	if err != nil {
		return err
	}
	if s.registry, err = startRegistry(image); err != nil {
		return err
	}
	s.tell("%s, %d MB", s.registry.ref, image.layer.Size>>20)
	return nil
}

func (s *show) stopServing(context.Context) error {
	if s.registry == nil {
		return nil
	}
	return s.registry.close()
}

func (s *show) startAgent(ctx context.Context) error {
	if err := s.agent.start(ctx); err != nil {
		return err
	}
	version, err := s.agent.runtime().Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return err
	}
	s.tell("%s %s below %s, CRI %s", version.RuntimeName, version.RuntimeVersion, s.dir, version.RuntimeApiVersion)
	return nil
}

func (s *show) stopAgent(ctx context.Context) error {
	s.say("Stop the agent and its supervisor, remove its folders")
	err := s.agent.stop(ctx)
	if err != nil {
		err = fmt.Errorf("%w\n--- the agent's log:\n%s", err, s.agent.log.String())
	}
	return err
}

func (s *show) pull(ctx context.Context) error {
	answer, err := s.agent.images().PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: s.registry.ref}})
	if err == nil {
		s.tell("image %s", answer.ImageRef)
	}
	return err
}

func (s *show) fetch(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/", s.address, webPort), nil)
	if err != nil {
		return err
	}
	// A transport of its own, so that no proxy of the environment is asked for the pod's address.
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var answer *http.Response
	err = retry(ctx, func() error {
		var err error
		answer, err = client.Do(request)
		return err
	})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	s.tell("%s: %s", request.URL, body)
	return err
}

func (s *show) readLog(context.Context) error {
	f, err := os.Open(filepath.Join(s.config.LogDirectory, logName))
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLog))
	s.tell("%s", text)
	return err
}

// retry repeats what fails because a server is not up yet.
func retry(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, goneLimit)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := do()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
}

// stillThere returns what the machine has more of than before, once it has had time to go.
func stillThere(before leak.Snapshot) []string {
	var left []string
	err := retry(context.Background(), func() error {
		after, err := leak.Take()
		if err != nil {
			return err
		}
		if left = before.Newer(after); len(left) > 0 {
			return errors.New("something is left")
		}
		return nil
	})
	if err != nil && len(left) == 0 {
		left = []string{err.Error()}
	}
	return left
}
