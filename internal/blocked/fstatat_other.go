//go:build !amd64

package blocked

import "golang.org/x/sys/unix"

const sysFstatat = unix.SYS_FSTATAT
