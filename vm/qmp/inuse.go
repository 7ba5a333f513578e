package qmp

import (
	"io"
	"os"
	"strings"
)

// InUse reports whether somebody is connected to the socket at path now, as far
// as this network namespace shows: /proc/net/unix lists the accepted end of every
// connection under the path of the socket that accepted it.
func InUse(path string) bool {
	f, err := os.Open("/proc/net/unix")
	if err != nil {
		return false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 16<<20))
	if err != nil {
		return false
	}
	return inUse(string(b), path)
}

// inUse looks for a connected socket of that path in lines like
//
//	Num       RefCount Protocol Flags    Type St Inode Path
//	ffff...: 00000003 00000000 00000000 0001 03 12345 /run/vm.sock
func inUse(table, path string) bool {
	const connected = "03"
	for line := range strings.Lines(table) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasSuffix(line, " "+path) {
			continue
		}
		if f := strings.Fields(line); len(f) >= 8 && f[5] == connected {
			return true
		}
	}
	return false
}
