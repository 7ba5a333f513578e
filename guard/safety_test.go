package guard_test

import (
	"strings"
	"testing"
)

// TestNothingUnsafe keeps the main binary static, and what can corrupt its
// memory in few places that are easy to find.
func TestNothingUnsafe(t *testing.T) {
	for _, s := range sources(t) {
		marked := strings.HasSuffix(s.name, "_unsafe.go")
		for _, i := range imports(s) {
			switch {
			case i == "C":
				t.Errorf("%s: uses cgo", s.name)
			case i == "unsafe" && !marked && !s.test:
				t.Errorf("%s: imports unsafe: only files named *_unsafe.go may", s.name)
			}
		}
		for _, group := range s.Comments {
			for _, c := range group.List {
				if strings.HasPrefix(c.Text, "//go:linkname") && !marked {
					t.Errorf("%s: uses go:linkname: only files named *_unsafe.go may", s.name)
				}
			}
		}
	}
}
