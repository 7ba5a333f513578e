package linux

import (
	"slices"
	"strings"
	"testing"
)

func TestSplitLayers(t *testing.T) {
	for s, want := range map[string][]string{
		"": nil, "/a": {"/a"}, "/a:/b": {"/a", "/b"}, `/a\:b:/c\\`: {"/a:b", `/c\`},
		"/a::/data": {"/a", "/data"}, ":": nil, `/a\`: {`/a\`},
	} {
		if got := splitLayers(s); !slices.Equal(got, want) {
			t.Errorf("%q: %q, not %q", s, got, want)
		}
	}
}

func FuzzSplitLayers(f *testing.F) {
	f.Add(`/a\:b:/c`)
	f.Fuzz(func(t *testing.T, s string) {
		if n := len(strings.Join(splitLayers(s), "")); n > len(s) {
			t.Errorf("%q: %d bytes of %d", s, n, len(s))
		}
	})
}
