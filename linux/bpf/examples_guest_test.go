package bpf_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/linuxtest"
)

func TestGuestExamples(t *testing.T) {
	linuxtest.Examples(t, func(s *linux.System) { system = s }, []linuxtest.Example{
		{Name: "Programs", Run: ExamplePrograms, MayBeEmpty: true},
		{Name: "Maps", Run: ExampleMaps, MayBeEmpty: true},
		{Name: "Links", Run: ExampleLinks, MayBeEmpty: true},
		{Name: "Attachments", Run: ExampleAttachments, MayBeEmpty: true},
		{Name: "FindHolders", Run: ExampleFindHolders, MayBeEmpty: true},
	})
}
