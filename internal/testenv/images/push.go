package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Hosts lists the registries that the references of the images name.
func Hosts() []string {
	seen := map[string]struct{}{}
	for _, one := range catalogue() {
		for _, ref := range one.refs {
			seen[ref[:strings.Index(ref, "/")]] = struct{}{}
		}
	}
	return sortedKeys(seen)
}

// Push uploads every image of a layout directory to the registry at base, such as http://127.0.0.1:5000, under its
// reference without the host. It needs the Distribution API and no authentication. Repeating it is harmless.
func Push(ctx context.Context, layoutDir, base string) error {
	text, err := os.ReadFile(filepath.Join(layoutDir, ocispec.ImageIndexFile))
	if err != nil {
		return fmt.Errorf("read image index: %w", err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return fmt.Errorf("parse image index of %s: %w", layoutDir, err)
	}
	for _, entry := range index.Manifests {
		ref := entry.Annotations[ocispec.AnnotationRefName]
		if err := pushImage(ctx, layoutDir, base, ref, entry); err != nil {
			return fmt.Errorf("push image %s: %w", ref, err)
		}
	}
	return nil
}

func pushImage(ctx context.Context, layoutDir, base, ref string, entry ocispec.Descriptor) error {
	_, name, _ := strings.Cut(ref, "/")
	repository, tag, ok := strings.Cut(name, ":")
	if !ok {
		return errors.New("reference has no tag")
	}
	content, err := os.ReadFile(blobPath(layoutDir, entry.Digest))
	if err != nil {
		return err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(content, &manifest); err != nil {
		return fmt.Errorf("parse manifest: %w", err)
	}
	repo := base + "/v2/" + repository
	for _, blob := range append([]ocispec.Descriptor{manifest.Config}, manifest.Layers...) {
		if err := pushBlob(ctx, layoutDir, repo, blob.Digest); err != nil {
			return fmt.Errorf("push blob %s: %w", blob.Digest, err)
		}
	}
	_, err = call(ctx, http.MethodPut, repo+"/manifests/"+tag, entry.MediaType, content, http.StatusCreated)
	return err
}

func pushBlob(ctx context.Context, layoutDir, repo string, d digest.Digest) error {
	if _, err := call(ctx, http.MethodHead, repo+"/blobs/"+d.String(), "", nil, http.StatusOK); err == nil {
		return nil
	}
	location, err := call(ctx, http.MethodPost, repo+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(blobPath(layoutDir, d))
	if err != nil {
		return err
	}
	query := location.Query()
	query.Set("digest", d.String())
	location.RawQuery = query.Encode()
	_, err = call(ctx, http.MethodPut, location.String(), "application/octet-stream", content, http.StatusCreated)
	return err
}

// call makes one request and returns the Location of the answer, nil without one.
func call(ctx context.Context, method, target, mediaType string, body []byte, want int) (*url.URL, error) {
	request, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(string(body)))
	if err != nil {
		return nil, err
	}
	if mediaType != "" {
		request.Header.Set("Content-Type", mediaType)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	if response.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s: %s", method, target, response.Status, answer)
	}
	location, err := response.Location()
	if errors.Is(err, http.ErrNoLocation) {
		return nil, nil
	}
	return location, err
}
