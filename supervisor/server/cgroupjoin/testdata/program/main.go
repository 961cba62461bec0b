// Program tells what log level it was given.
package main

import (
	"fmt"
	"os"

	_ "github.com/nodeagent/nodeagent/supervisor/server/cgroupjoin"
)

func main() { fmt.Print(os.Getenv("_LIBCONTAINER_LOGLEVEL")) }
