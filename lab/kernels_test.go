package lab

import (
	"slices"
	"testing"
)

// TestReleasesFor: a series that no release can have is refused after one or two of them were searched.
func TestReleasesFor(t *testing.T) {
	has := map[string][]string{
		"sid": {"7.2"}, "experimental": {"7.2", "7.3"}, "trixie": {"6.12"}, "trixie-backports": {"6.16", "6.18"}, "bookworm": {"6.1"}, "bookworm-backports": {"6.12"},
		"bullseye": {"5.10"}, "bullseye-backports": {"6.1"},
	}
	for of, want := range map[string]int{"9.99": 2, "7.10": 2, "7.3": 2, "7.2": 1, "3.16": 1, "5.10": 1, "6.12": 1, "6.16": 2, "6.3": len(elsewhere)} {
		seen, searched, n := map[string]bool{}, map[string]bool{}, 0
		for _, release := range releasesFor(of) {
			if inNone(of, seen, searched) {
				break
			}
			n++
			for _, s := range has[release] {
				seen[s] = true
			}
			if slices.Contains(has[release], of) {
				break
			}
			searched[release] = true
		}
		if n != want {
			t.Errorf("%s: %d releases were searched, not %d", of, n, want)
		}
	}
	// A release that cannot be reached shows nothing.
	if inNone("9.99", map[string]bool{"7.2": true}, map[string]bool{"sid": true}) || inNone("9.99", nil, map[string]bool{"sid": true, "experimental": true}) {
		t.Error("nothing was seen, and that is taken for an answer")
	}
	for _, of := range []string{"9.99", "3.16", "6.12"} {
		if r := releasesFor(of); len(slices.Compact(slices.Sorted(slices.Values(r)))) != len(r) || len(r) < len(elsewhere) {
			t.Errorf("%s: %q", of, r)
		}
	}
}
