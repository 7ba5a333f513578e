package text_test

import (
	"io"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/linuxtest"
)

func TestGuestExamples(t *testing.T) {
	linuxtest.Examples(t, func(s *linux.System) {
		k, err := lab.FindKernel(t.Context(), lab.DefaultKernel, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		system, vmlinuz = s, k.Vmlinuz
	}, []linuxtest.Example{{Name: "Text_Differences", Run: ExampleText_Differences}})
}
