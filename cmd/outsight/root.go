package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/table"
	_ "github.com/outsight-vmi/outsight/table/views" // each is a verb
)

const rootLong = `outsight sees into virtual machines from outside. It reads the memory of a
running Linux VM from its host, with nothing in the guest and nothing prepared.

` + targetHelp + `

` + statusHelp

const targetHelp = `TARGET is one of
  qemu:SOCKET  a QEMU by its QMP socket
  libvirt:NAME a domain of libvirt, by its name or UUID
  pid:N        the process of a virtual machine
  NAME         a virtual machine of this host, as "outsight vms" lists it
  lab:NAME     a guest of "outsight lab"
  PATH         a QMP socket or a memory dump, recognized by its content
Without a TARGET, the one that runs on this host is meant.`

const statusHelp = `Exit status: 0 done; 1 done, and something was found; 2 the command line makes no
sense; 3 the target cannot be opened or read; 130 interrupted; 141 the reader of the
output went away.`

// The groups that --help lists commands in, beside those of the views.
const (
	groupAsk    = "ask"
	groupMemory = "memory"
	groupDisk   = "disk"
	groupHost   = "host"
)

// newRootCommand makes every verb, unless args begin with a view's name: then only that
// one, since to make them all takes about a millisecond.
func newRootCommand(args ...string) *cobra.Command {
	root := &cobra.Command{
		Use:   "outsight VERB [TARGET] [flags]",
		Short: "See into virtual machines from outside",
		Long:  rootLong,
		Example: `  outsight vms
  outsight ps qemu:/run/vm1.qmp
  outsight ps memory.raw -o json | jq .comm`,
		Args:          cobra.ArbitraryArgs, // so that an unknown verb gets our own message
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return unknownVerb(c, args[0])
		},
	}
	for _, g := range table.Groups {
		root.AddGroup(&cobra.Group{ID: string(g), Title: string(g) + ":"})
	}
	root.AddGroup(&cobra.Group{ID: groupAsk, Title: "Across views:"}, &cobra.Group{ID: groupMemory, Title: "Memory itself:"}, &cobra.Group{ID: groupDisk, Title: "Disks:"}, &cobra.Group{ID: groupHost, Title: "On this host:"})
	root.SetFlagErrorFunc(flagError)
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.HiddenDefaultCmd = true
	if len(args) > 0 {
		if v, ok := table.Lookup(args[0]); ok {
			root.AddCommand(newViewCommand(v))
			markBodies(root)
			return root
		}
	}
	for _, v := range table.All() {
		root.AddCommand(newViewCommand(v))
	}
	root.AddCommand(newTreeCommand(), newVersionCommand(), newManCommand())
	root.AddCommand(extraCommands()...)
	markBodies(root)
	return root
}

func unknownVerb(c *cobra.Command, name string) error {
	if near := c.SuggestionsFor(name); len(near) > 0 {
		return usagef("unknown verb %q; did you mean %s?", name, strings.Join(near, " or "))
	}
	return usagef("unknown verb %q; %s --help lists the verbs", name, c.CommandPath())
}

// oneTarget is the Args of commands with an optional TARGET.
func oneTarget(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("%s takes one TARGET, not %d", c.Name(), len(args))
	}
	return nil
}

// arguments takes from low to high of them, of which a message says what they are.
func arguments(low, high int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < low || len(args) > high {
			return fmt.Errorf("%s takes %s", c.Name(), what)
		}
		return nil
	}
}

func noTarget(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments", c.Name())
	}
	return nil
}
