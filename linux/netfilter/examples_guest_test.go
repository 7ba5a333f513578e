package netfilter_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/linuxtest"
)

func TestGuestExamples(t *testing.T) {
	linuxtest.Examples(t, func(s *linux.System) { system = s }, []linuxtest.Example{
		{Name: "Hooks", Run: ExampleHooks, MayBeEmpty: true},
		{Name: "Rules", Run: ExampleRules, MayBeEmpty: true},
		{Name: "Chains", Run: ExampleChains, MayBeEmpty: true},
		{Name: "Sets", Run: ExampleSets, MayBeEmpty: true},
		{Name: "Objects", Run: ExampleObjects, MayBeEmpty: true},
	})
}
