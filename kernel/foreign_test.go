package kernel

import (
	"errors"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	physsynth "github.com/outsight-vmi/outsight/phys/synth"
)

func uts(texts ...string) []byte {
	b := make([]byte, 6*utsField)
	for i, s := range texts {
		copy(b[i*utsField:], s)
	}
	return b
}

// TestForeign: what cannot be read is called by its name.
func TestForeign(t *testing.T) {
	for _, c := range []struct {
		at   phys.Addr
		what []byte
		want string
	}{
		{0x5432, uts("Linux", "web", "6.12.1-686-pae", "#1 SMP Debian", "i686"), "Linux 6.12.1-686-pae for i686"},
		{chunk - 100, uts("Linux", "web", "6.6.0", "#1 SMP", "aarch64"), "Linux 6.6.0 for aarch64"},
		{0x9000, []byte("@(#)FreeBSD 14.1-RELEASE"), "FreeBSD"},
		{0x9000, uts("Linux", "web", "6.6.0", "#1 SMP", "x86_64"), ""},
		{0x9000, uts("Linux", "web", "6.6.0", "\x01", "i686"), ""},
		{0x9000, []byte("anything"), ""},
	} {
		m := physsynth.New(phys.Range{End: 2*chunk + 1<<20})
		m.Bytes(c.at, c.what...)
		_, err := Find(t.Context(), m, Options{})
		if got := errors.Is(err, ErrForeign); got != (c.want != "") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.want, err)
		}
	}
}

func FuzzFindUTS(f *testing.F) {
	f.Add(uts("Linux", "web", "6.12.1-686-pae", "#1 SMP Debian", "i686"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := findUTS(b); s != "" && !strings.HasPrefix(s, "Linux ") {
			t.Errorf("%q", s)
		}
	})
}
