package unpack

// WantedXattr tells which extended attributes files of images have. Others
// are neither taken from a layer nor put into one.
func WantedXattr(name string) bool { return wantedXattr(name) }
