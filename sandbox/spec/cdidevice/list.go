package cdidevice

import (
	"fmt"

	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// List gives the names of all devices that the files in dirs describe, such as
// "vendor.com/class=name", in order. Files that cannot be read have none.
func List(dirs []string) ([]string, error) {
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return nil, fmt.Errorf("read CDI files: %w", err)
	}
	return cache.ListDevices(), nil
}
