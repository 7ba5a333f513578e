package image_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/linuxtest"
)

func TestGuestExamples(t *testing.T) {
	linuxtest.Examples(t, func(s *linux.System) { system = s }, []linuxtest.Example{
		{Name: "Reader_Images", Run: ExampleReader_Images},
		{Name: "ExportsOf", Run: ExampleExportsOf, MayBeEmpty: true},
	})
}
