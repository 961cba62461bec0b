package imageservice

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/nodeagent/nodeagent/imageservice/registry"
)

// Login finds out whether the registry that is the server address of some
// credentials takes them. It returns the token that is to be kept in place of
// the password, if there is one.
func (s *Store) Login(ctx context.Context, auth Auth) (identityToken string, err error) {
	creds, err := credentials(auth)
	if err != nil {
		return "", fmt.Errorf("login: %w", err)
	}
	host := registry.HostOf(auth.ServerAddress)
	if host == "" {
		return "", fmt.Errorf("login: no registry is named: %w", errdefs.ErrInvalidArgument)
	}
	identityToken, err = s.registry.Login(ctx, host, creds)
	if err != nil {
		return "", fmt.Errorf("login to %s: %w", host, err)
	}
	return identityToken, nil
}

// Found is a repository that a search found.
type Found = registry.Found

const (
	// searchLimit is how many repositories are looked for when nobody says,
	// maxSearch how many at most.
	searchLimit, maxSearch = 25, 100
)

// Search finds repositories: by a word at docker.io, or by HOST/word
// elsewhere.
func (s *Store) Search(ctx context.Context, term string, limit int, auth Auth) ([]Found, error) {
	if limit == 0 {
		limit = searchLimit
	}
	if limit < 0 || limit > maxSearch {
		return nil, fmt.Errorf("search %q: limit %d is outside the range of [1, %d]: %w", term, limit, maxSearch, errdefs.ErrInvalidArgument)
	}
	creds, err := credentials(auth)
	if err != nil {
		return nil, fmt.Errorf("search %q: %w", term, err)
	}
	domain, word := splitTerm(term)
	if word == "" || len(term) > maxReference {
		return nil, fmt.Errorf("search %q: not a term: %w", term, errdefs.ErrInvalidArgument)
	}
	found, err := s.registry.Search(ctx, domain, word, limit, creds)
	if err != nil {
		return nil, fmt.Errorf("search %q: %w", term, err)
	}
	return found, nil
}

// splitTerm takes a search term apart into the registry and the word.
func splitTerm(term string) (domain, word string) {
	host, rest, ok := strings.Cut(term, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "docker.io", strings.TrimPrefix(term, "library/")
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	return host, rest
}

// Tags lists the tags of a repository at its registry.
func (s *Store) Tags(ctx context.Context, repository string, auth Auth) ([]string, error) {
	creds, err := credentials(auth)
	if err != nil {
		return nil, fmt.Errorf("tags of %s: %w", repository, err)
	}
	named, err := parseReference(repository)
	if err != nil {
		return nil, fmt.Errorf("tags: %w", err)
	}
	tags, err := s.registry.Tags(ctx, reference.TrimNamed(named), creds)
	if err != nil {
		return nil, fmt.Errorf("tags of %s: %w", reference.TrimNamed(named), err)
	}
	return tags, nil
}
