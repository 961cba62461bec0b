package imageservice

import (
	"context"
	"fmt"

	"github.com/nodeagent/nodeagent/imageservice/registry"
)

// Explain is a dry run of a pull's resolution. The reference comes back
// normalised.
func (s *Store) Explain(ctx context.Context, ref string, auth Auth) (string, registry.Explanation, error) {
	named, err := parseReference(ref)
	if err != nil {
		return "", registry.Explanation{}, fmt.Errorf("explain: %w", err)
	}
	creds, err := credentials(auth)
	if err != nil {
		return "", registry.Explanation{}, fmt.Errorf("explain %s: %w", named, err)
	}
	x, err := s.registry.Explain(ctx, named, creds)
	if err != nil {
		return "", x, fmt.Errorf("explain %s: %w", named, err)
	}
	return named.String(), x, nil
}
