package main

import (
	"context"
	"fmt"
	"regexp"
	"sync"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/table/text"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
)

// openMachine opens a TARGET.
func openMachine(ctx context.Context, target string) (*vm.Machine, error) {
	return local.Open(ctx, target)
}

var plainName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
})

// completeTarget offers the machines of this host to the shell, besides files.
func completeTarget(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	machines, err := local.List(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	seen := map[string]int{}
	for _, m := range machines {
		seen[m.Name]++
	}
	var names []cobra.Completion
	for _, m := range machines {
		// A name comes from whoever started the machine: one that a shell would not
		// take as it is, or that another has too, is offered by its process.
		target := m.Name
		if !plainName().MatchString(target) || seen[target] > 1 {
			target = fmt.Sprintf("pid:%d", m.PID)
		}
		names = append(names, cobra.CompletionWithDesc(target, text.Visible(m.Title())))
	}
	return names, cobra.ShellCompDirectiveDefault
}
