package lab

import (
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab/state"
)

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"web": true, "a": true, "debian-6.12": true, "A_9": true, strings.Repeat("a", 40): true,
		"": false, ".hidden": false, "-n": false, "../web": false, "a/b": false, "a b": false, "ä": false, "a\n": false, strings.Repeat("a", 41): false,
	} {
		if got := state.ValidName(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}
