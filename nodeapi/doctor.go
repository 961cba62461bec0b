package nodeapi

import (
	"context"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/nodeapi/doctor"
)

// levels are the findings' in the API.
var levels = map[doctor.Level]nodev1.Finding_Level{
	doctor.OK: nodev1.Finding_OK, doctor.Note: nodev1.Finding_NOTE,
	doctor.Warning: nodev1.Finding_WARNING, doctor.Problem: nodev1.Finding_PROBLEM,
}

// Doctor looks at the host, and mends what it can of what is wrong when asked.
func (s *debug) Doctor(ctx context.Context, req *nodev1.DoctorRequest) (*nodev1.DoctorResponse, error) {
	resp := &nodev1.DoctorResponse{}
	for _, f := range s.host.Examine(ctx) {
		m := &nodev1.Finding{Level: levels[f.Level], Check: f.Check, Text: f.Text, Remedy: f.Remedy, Fixable: f.Fix != nil}
		// What is only noted may be as somebody wants it.
		if req.GetFix() && f.Fix != nil && f.Level >= doctor.Warning {
			if err := mend(ctx, f); err != nil {
				m.FixError = err.Error()
			} else {
				m.Fixed = true
			}
		}
		resp.Findings = append(resp.Findings, m)
	}
	return resp, nil
}

// mendTimeout bounds one mending: a leftover mount may hang.
const mendTimeout = time.Minute

func mend(ctx context.Context, f doctor.Finding) error {
	ctx, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	return f.Fix(ctx)
}
