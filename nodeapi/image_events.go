package nodeapi

import (
	"maps"

	"github.com/distribution/reference"
	"github.com/nodeagent/nodeagent/imageservice"
)

// emitImage tells who watches what was done to an image, by whomever: also
// over CRI. As docker has it, what goes to or comes from a registry is told of
// under its reference, everything else under the image's ID.
func (s *Server) emitImage(c imageservice.Change) {
	attributes := map[string]string{}
	if c.Image.Config != nil {
		maps.Copy(attributes, c.Image.Config.Config.Labels)
	}
	id := c.Image.ID
	attributes["name"] = id
	if named, err := reference.ParseNormalizedNamed(c.Ref); err == nil {
		switch c.Action {
		case imageservice.ActionPull, imageservice.ActionPush:
			id, attributes["name"] = reference.FamiliarString(named), reference.FamiliarName(named)
		case imageservice.ActionTag:
			attributes["name"] = reference.FamiliarString(named)
		}
	}
	s.emit(eventImage, string(c.Action), id, attributes)
}
