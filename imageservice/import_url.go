package imageservice

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// urlAnswer is how long a server may take to answer, urlStall how long
	// it may send nothing after that.
	urlAnswer = 30 * time.Second
	urlStall  = time.Minute
)

// ImportURL is ImportRoot of what a server has, over HTTP.
func (s *Store) ImportURL(ctx context.Context, url string, req ImportRequest) (Image, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(urlAnswer, func() {
		cancel(fmt.Errorf("the server does not answer: %w", errdefs.ErrUnavailable))
	})
	defer stalled.Stop()
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Image{}, fmt.Errorf("import: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	get.Header.Set("User-Agent", "nodeagent")
	resp, err := http.DefaultClient.Do(get)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return Image{}, fmt.Errorf("import: %w: %w", err, errdefs.ErrUnavailable)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Image{}, fmt.Errorf("import: GET %s: %s: %w", get.URL.Redacted(), resp.Status, errdefs.ErrUnavailable)
	}
	img, err := s.ImportRoot(ctx, alive{resp.Body, stalled}, req)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("import: %w", cause)
	}
	return img, err
}

// alive puts the end off while something comes.
type alive struct {
	io.Reader
	stalled *time.Timer
}

// Read puts it off.
func (a alive) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if err != nil {
		a.stalled.Stop() // what follows takes as long as it takes
		return n, err
	}
	a.stalled.Reset(urlStall)
	return n, nil
}
