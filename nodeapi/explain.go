package nodeapi

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// Explain is a dry run of what a pull asks registries.
func (s *registries) Explain(ctx context.Context, req *nodev1.ExplainRequest) (*nodev1.ExplainResponse, error) {
	ref, x, err := s.images.Explain(ctx, req.GetRef(), authOf(req.GetAuth()))
	if err != nil {
		return nil, said(err)
	}
	resp := &nodev1.ExplainResponse{Ref: ref}
	for _, f := range x.Files {
		resp.Files = append(resp.Files, &nodev1.ConfigFile{Path: f.Path, State: f.State})
	}
	served := false
	for _, a := range x.Asked {
		m := &nodev1.Attempt{
			Url: a.URL, Role: "registry", Config: a.Config, Tls: a.TLS, Credentials: a.Credentials, Proxy: a.Proxy,
			Answer: a.Answer, Digest: a.Digest, WouldServe: a.Digest != "" && !served, Millis: a.Took.Milliseconds(),
		}
		if a.Mirror {
			m.Role = "mirror"
		}
		served = served || m.WouldServe
		resp.Attempts = append(resp.Attempts, m)
	}
	return resp, nil
}
