package lab

import (
	"slices"
	"testing"
)

func TestUnaccepted(t *testing.T) {
	const config = "# a comment\nCONFIG_A=y\nCONFIG_B=4\nCONFIG_C=y\n# CONFIG_D is not set\n# CONFIG_E is not set\n"
	const got = "CONFIG_A=y\nCONFIG_B=8\n# CONFIG_C is not set\nCONFIG_D=y\nCONFIG_AB=y\n"
	want := []string{"CONFIG_B=4", "CONFIG_C=y", "# CONFIG_D is not set"}
	if lost := unaccepted(config, got); !slices.Equal(lost, want) {
		t.Errorf("%q, want %q", lost, want)
	}
	if lost := unaccepted(MinimalConfig, MinimalConfig); len(lost) > 0 {
		t.Errorf("the minimal configuration contradicts itself: %q", lost)
	}
}

func TestBuildKernelNames(t *testing.T) {
	t.Setenv("OUTSIGHT_LAB_CACHE", t.TempDir())
	for _, series := range []string{"", "6.12-rt", "x", "../6.12"} {
		if _, err := BuildKernel(t.Context(), series, MinimalConfig, nil); err == nil {
			t.Errorf("%q: no error", series)
		}
	}
}
