package libvirt

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// UUID names a domain.
type UUID [16]byte

func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// parseUUID parses a UUID with or without dashes, as virUUIDParse does.
func parseUUID(s string) (u UUID, ok bool) {
	s = strings.ReplaceAll(s, "-", "")
	if len(s) != 2*len(u) {
		return u, false
	}
	_, err := hex.Decode(u[:], []byte(s))
	return u, err == nil
}

// isMonitor recognises the argument of -chardev for libvirt's monitor, in both of QEMU's
// syntaxes.
func isMonitor(arg string) bool {
	return strings.Contains(arg, ",id=charmonitor,") || strings.Contains(arg, `"id":"charmonitor"`)
}
