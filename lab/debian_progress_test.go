package lab

import (
	"fmt"
	"strings"
	"testing"
)

// TestBootstrapProgress reports the steps of mmdebstrap and apt, also when their output comes in pieces.
func TestBootstrapProgress(t *testing.T) {
	var in strings.Builder
	in.WriteString("I: automatically chosen mode: root\nI: running apt-get update...\n" +
		"Get:1 http://mirror.example/debian trixie InRelease [140 kB]\nGet:3 http://mirror.example/debian trixie/main amd64 Packages [9679 kB]\n" +
		"0 upgraded, 27 newly installed, 0 to remove and 0 not upgraded.\n")
	for i := 1; i <= 27; i++ {
		fmt.Fprintf(&in, "Get:%d http://mirror.example/debian trixie/main amd64 gcc-%d-base amd64 14.2.0-19 [49.4 kB]\n", i, i)
	}
	in.WriteString("I: extracting archives...\nUnpacking gcc-14-base:amd64 (14.2.0-19) ...\nSetting up gcc-14-base:amd64 (14.2.0-19) ...\nI: creating tarball...\n" +
		"99999999999999999999 upgraded, 99999999999999999999 newly installed\nSetting up x (1) ...\n")
	const want = `fetching the package index
downloading package 1 of 27
downloading package 25 of 27
downloading package 27 of 27
unpacking the base packages
unpacking package 1 of 27
configuring package 1 of 27
packing the file system
`
	for _, piece := range []int{1, 7, in.Len()} {
		var got strings.Builder
		p := &bootstrapProgress{to: &got}
		for s := in.String(); s != ""; {
			n := min(piece, len(s))
			if wrote, err := p.Write([]byte(s[:n])); wrote != n || err != nil {
				t.Fatal(wrote, err)
			}
			s = s[n:]
		}
		if got.String() != want {
			t.Errorf("in pieces of %d:\n%s", piece, got.String())
		}
	}
}
