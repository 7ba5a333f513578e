package kernel

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/phys"
)

// utsField is the size of each text in struct new_utsname (__NEW_UTS_LEN + 1), the same
// on every architecture.
const utsField = 65

// utsStart is how a struct new_utsname of Linux begins: sysname, padded with zeros.
var utsStart = append([]byte("Linux"), make([]byte, utsField-len("Linux"))...)

// others are systems that are known by a text that their kernels hold and Linux does not.
var others = []struct{ text, name string }{
	{"ntkrnlmp.pdb\x00", "Windows"},
	{"@(#)FreeBSD ", "FreeBSD"},
	{"FreeBSD is a registered trademark of The FreeBSD Foundation.", "FreeBSD"},
	{"@(#)OpenBSD ", "OpenBSD"},
	{"The NetBSD Foundation, Inc.  All rights reserved.", "NetBSD"},
	{"SunOS Release ", "illumos or Solaris"},
}

// foreign says which system is in memory, for a guest in which no kernel was found that
// can be read; empty if that cannot be said. It reads all of memory.
func foreign(ctx context.Context, mem phys.Memory) string {
	b := make([]byte, chunk+utsField*6)
	other := ""
	for r := range populated(mem) {
		for at := r.Start; at < r.End && ctx.Err() == nil; at += chunk {
			n, _ := mem.ReadAt(b[:min(uint64(len(b)), uint64(r.End-at))], at)
			if uts := findUTS(b[:n]); uts != "" {
				return uts
			}
			for _, o := range others {
				if other == "" && bytes.Contains(b[:n], []byte(o.text)) {
					other = o.name
				}
			}
		}
	}
	return other
}

// findUTS finds the names of a Linux system (struct new_utsname) for another machine than
// amd64 in b.
func findUTS(b []byte) string {
	for off := 0; ; off++ {
		i := bytes.Index(b[off:], utsStart)
		if i < 0 || off+i+6*utsField > len(b) {
			return ""
		}
		off += i
		release, ok1 := utsText(b[off+2*utsField:])
		version, ok2 := utsText(b[off+3*utsField:])
		machine, ok3 := utsText(b[off+4*utsField:])
		if ok1 && ok2 && ok3 && strings.HasPrefix(version, "#") && machine != "x86_64" {
			return fmt.Sprintf("Linux %s for %s", release, machine)
		}
	}
}

// utsText is one text of a struct new_utsname, if it is one: printable, and padded.
func utsText(b []byte) (string, bool) {
	text, rest, ok := bytes.Cut(b[:utsField], []byte{0})
	if !ok || len(text) == 0 || len(bytes.Trim(rest, "\x00")) != 0 {
		return "", false
	}
	for _, c := range text {
		if c < ' ' || c > '~' {
			return "", false
		}
	}
	return string(text), true
}
