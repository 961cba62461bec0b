package nodeapi

import (
	"slices"
	"testing"

	"github.com/nodeagent/nodeagent/nodeapi/layer"
)

func TestChangesWithoutMountPoints(t *testing.T) {
	etc, hosts := layer.Change{Kind: layer.Modified, Path: "/etc"}, layer.Change{Kind: layer.Added, Path: "/etc/hosts"}
	passwd, file := layer.Change{Kind: layer.Modified, Path: "/etc/passwd"}, layer.Change{Kind: layer.Added, Path: "/file"}
	gone := layer.Change{Kind: layer.Deleted, Path: "/etc/hosts"}
	for name, test := range map[string]struct{ all, want []layer.Change }{
		"nothing":             {nil, nil},
		"mount points alone":  {[]layer.Change{etc, hosts}, nil},
		"another folder":      {[]layer.Change{etc, hosts, file}, []layer.Change{file}},
		"another file beside": {[]layer.Change{etc, hosts, passwd}, []layer.Change{etc, passwd}},
		"image had one":       {[]layer.Change{etc, gone}, []layer.Change{etc, gone}},
		"folder's own":        {[]layer.Change{etc, file}, []layer.Change{etc, file}},
	} {
		if got := withoutMountPoints(slices.Clone(test.all)); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
