package server

import (
	"context"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
)

// List tells of every container, from memory.
func (s *Server) List(context.Context, *v1.ListRequest) (*v1.ListResponse, error) {
	resp := &v1.ListResponse{}
	for _, c := range s.all() {
		if m := c.state(); m != nil {
			resp.States = append(resp.States, m)
		}
	}
	return resp, nil
}
